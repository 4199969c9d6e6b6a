"""The two losses: contrastive over clusters, adversarial over cameras."""

from __future__ import annotations

from typing import Literal

import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

CameraLoss = Literal["logits", "reference"]


def weighted_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | npt.ArrayLike | None = None
) -> Tensor:
    """Weighted mean of the images' cross-entropies: sum w_i l_i / sum w_i.

    Args:
        logits: (B, K).
        labels: (B,).
        weights: (K,) weight of each class; None weighs all alike.

    Differs from the reference: a batch whose weights sum to 0 (clusters of one camera only) takes
    the plain mean; there it is 0 / 0.
    """
    if weights is None:
        return cross_entropy(logits, labels)
    losses = cross_entropy(logits, labels, reduction="none")
    per_image = torch.as_tensor(weights, dtype=losses.dtype, device=losses.device)[labels]
    per_image = torch.where(per_image.sum() > 0, per_image, torch.ones_like(per_image))
    return (per_image * losses).sum() / per_image.sum()


def camera_loss(logits: Tensor, camids: Tensor, kind: CameraLoss = "logits") -> Tensor:
    """Cross-entropy of the camera classifier.

    Args:
        logits: (B, C).
        camids: (B,).
        kind: ``logits`` is ordinary cross-entropy. ``reference`` is the released arithmetic, which
            takes the softmax of the logits for logits once more: at uniform predictions its gradient
            is exactly 1/C of the ordinary one.
    """
    if kind == "reference":
        logits = logits.log_softmax(dim=1).softmax(dim=1)
    return cross_entropy(logits, camids)
