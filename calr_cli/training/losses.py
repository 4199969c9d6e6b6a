"""The two losses: contrastive over clusters, adversarial over cameras."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn.functional import cross_entropy

CameraLoss = Literal["logits", "reference"]


def image_shares(
    labels: npt.NDArray[Any], weights: npt.NDArray[Any] | None = None
) -> npt.NDArray[np.float64]:
    """Each image's share of its batch's mean loss: w_i / sum of w, so that shares sum to 1.

    They follow from the labels of the whole batch, so that whoever works on a part of it (a group, a
    device) weighs its images right without asking the others.

    Args:
        labels: (B,) cluster of each image.
        weights: (K,) weight of each cluster; None weighs all alike.

    Returns:
        (B,).

    Differs from the reference: a batch whose weights sum to 0 (clusters of one camera only) weighs all
    alike; there it is 0 / 0.
    """
    per_image = np.ones(len(labels)) if weights is None else weights[labels].astype(np.float64)
    total = per_image.sum()
    return per_image / total if total > 0 else np.full(len(labels), 1 / len(labels))


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
