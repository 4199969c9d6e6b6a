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
        features, labels = torch.as_tensor(features), torch.as_tensor(labels)
        if mode == "hard":
            similarities = (normalize(features) * self.centroids[labels]).sum(dim=1)
            by_similarity = similarities.argsort(stable=True)
            features, labels = features[by_similarity], labels[by_similarity]
        ordered, order = labels.sort(stable=True)
        clusters, cluster, counts = ordered.unique_consecutive(return_inverse=True, return_counts=True)
        turn = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[cluster]
        # Clusters do not touch each other: the n-th images of all clusters move their rows together.
        by_turn = turn.argsort(stable=True)
        sizes = turn.bincount().tolist()
        moves = features.index_select(0, order[by_turn])
        moves *= (1 - self.momentum) / _length(moves)
        rows = self.centroids.index_select(0, clusters)
        # A row's length is not taken out of it but out of the share that the next turn keeps of it.
        share = torch.full_like(rows[:, :1], self.momentum)
        for size, move, place in zip(sizes, moves.split(sizes), cluster[by_turn].split(sizes), strict=True):
            if size == len(rows):  # every cluster has an nth image: no need to pick rows
                torch.addcmul(move, rows, share, out=rows)
                torch.div(self.momentum, _length(rows), out=share)
            else:
                moved = torch.addcmul(move, rows[place], share[place])
                rows[place], share[place] = moved, self.momentum / _length(moved)
            if mode == "hard":
                break  # the first of each cluster is its least similar
        self.centroids.index_copy_(0, clusters, normalize(rows))


def _length(rows: Tensor) -> Tensor:
    """(B, 1), never 0."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return lengths.clamp_min_(1e-12)
