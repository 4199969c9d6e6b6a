"""The cluster memory: one unit row per cluster that the contrastive loss compares with."""

from __future__ import annotations

from typing import Literal

import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from calr_cli.training.losses import weighted_cross_entropy

UpdateMode = Literal["all", "hard"]


class ClusterMemory:
    """Momentum-updated cluster centroids and the loss against them.

    Source: Dai et al., "Cluster Contrast for Unsupervised Person Re-Identification", ACCV 2022.

    Args:
        centroids: (K, D) unit rows to start from.
        temperature: Divides the logits.
        momentum: Share of the OLD row in an update.

    Attributes:
        centroids: (K, D) float tensor, the rows as they are now.
    """

    def __init__(
        self, centroids: npt.ArrayLike | Tensor, temperature: float = 0.05, momentum: float = 0.1
    ) -> None:
        self.centroids = torch.as_tensor(centroids).detach().clone()
        self.temperature = temperature
        self.momentum = momentum

    def loss(self, features: Tensor, labels: Tensor, weights: Tensor | npt.ArrayLike | None = None) -> Tensor:
        """Cross-entropy of the similarities to all centroids, divided by the temperature.

        Args:
            features: (B, D), L2-normalised here; the gradient flows to them only.
            labels: (B,) cluster of each.
            weights: (K,) weight of each cluster; see `weighted_cross_entropy`.
        """
        features, labels = torch.as_tensor(features), torch.as_tensor(labels)
        logits = normalize(features) @ self.centroids.T / self.temperature
        return weighted_cross_entropy(logits, labels, weights)

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor, mode: UpdateMode = "all") -> None:
        """Move the rows of the batch's clusters towards its features.

        Args:
            features: (B, D), L2-normalised here.
            labels: (B,) cluster of each.
            mode: ``all``: every image in batch order, M_y <- normalise(m M_y + (1 - m) f). ``hard``:
                per cluster only the member least similar to M_y as it stood before (the first of
                equals).
        """
        features, labels = normalize(torch.as_tensor(features)), torch.as_tensor(labels)
        if mode == "hard":
            similarities = (features * self.centroids[labels]).sum(dim=1)
            by_similarity = similarities.argsort(stable=True)
            order = by_similarity[labels[by_similarity].argsort(stable=True)]
            turn = _occurrence(labels[order])
            chosen = order[turn == 0]
            self._move(features[chosen], labels[chosen])
            return
        # Clusters do not touch each other: the n-th images of all clusters move at the same time.
        order = labels.argsort(stable=True)
        turn = _occurrence(labels[order])
        for n in range(int(turn.max()) + 1 if len(turn) else 0):
            chosen = order[turn == n]
            self._move(features[chosen], labels[chosen])

    def _move(self, features: Tensor, labels: Tensor) -> None:
        old = self.centroids[labels]
        self.centroids[labels] = normalize(self.momentum * old + (1 - self.momentum) * features)


def _occurrence(ordered: Tensor) -> Tensor:
    """For labels sorted so that equals stand together: how many equals stand before each."""
    positions = torch.arange(len(ordered), device=ordered.device)
    starts = torch.ones_like(ordered, dtype=torch.bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    first = torch.where(starts, positions, torch.zeros_like(positions)).cummax(dim=0).values
    return positions - first
