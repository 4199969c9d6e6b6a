"""The camera classifier: it tells cameras apart, and the encoder learns to prevent that."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from calr_cli.models.gradient_reversal import reverse_gradient

HIDDEN_DIM = 100
DROPOUT = 0.5


class CameraClassifier(nn.Module):
    """Predicts the camera of an image from its feature, behind gradient reversal.

    Differs from the reference: it returns plain logits for an ordinary cross-entropy; the released program
    puts a softmax and a log-softmax before its cross-entropy.

    Args:
        feature_dim: D, the length of a feature.
        num_cameras: C, the number of cameras.
        alpha: Factor of the reversal: the encoder receives the gradient times ``-alpha``.
    """

    def __init__(self, feature_dim: int, num_cameras: int, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.hidden = nn.Sequential(
            nn.Linear(feature_dim, HIDDEN_DIM),
            nn.BatchNorm1d(HIDDEN_DIM),
            nn.ReLU(),
        )
        self.output = nn.Sequential(
            nn.Linear(HIDDEN_DIM, HIDDEN_DIM),
            nn.BatchNorm1d(HIDDEN_DIM),
            nn.ReLU(),
            nn.Linear(HIDDEN_DIM, num_cameras),
        )

    def forward(self, features: Tensor, kept: Tensor | None = None) -> Tensor:
        """Camera logits (B, C) of ``features`` (B, D).

        Args:
            features: (B, D) features.
            kept: (B, HIDDEN_DIM) bool from `draw_kept_units`; None drops nothing.
        """
        hidden = self.hidden(reverse_gradient(features, self.alpha))
        if kept is not None:
            hidden = hidden * kept / (1 - DROPOUT)
        logits: Tensor = self.output(hidden)
        return logits


def draw_kept_units(count: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """(count, HIDDEN_DIM) bool: the hidden units that dropout keeps for each image of a batch.

    The host draws them for the whole batch, because the generators of devices would draw different numbers
    with a different number of devices.
    """
    return rng.random((count, HIDDEN_DIM)) >= DROPOUT
