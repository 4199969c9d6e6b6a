"""The cluster memory: one unit row per cluster that the contrastive loss compares with."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from calr_cli.training.losses import image_shares
from calr_cli.transfer import to_device
from calr_cli.types import IntArray

UpdateMode = Literal["all", "hard"]


class ClusterMemory:
    """Momentum-updated cluster centroids and the loss against them.

    Source: Dai et al., "Cluster Contrast for Unsupervised Person Re-Identification", ACCV 2022.

    Args:
        centroids: (K, D) unit rows to start from.
        temperature: Divides the logits.
        momentum: Share of the OLD row in an update.
        groups: (K,) group of each row, such as the camera of a local cluster: an image is told apart only
            from the other rows of its own row's group. None: from all.

    Attributes:
        centroids: (K, D) float tensor, the rows as they are now.
    """

    def __init__(
        self,
        centroids: npt.ArrayLike | Tensor,
        temperature: float = 0.05,
        momentum: float = 0.1,
        groups: IntArray | None = None,
    ) -> None:
        self.centroids = torch.as_tensor(centroids).detach().clone()
        self.temperature = temperature
        self.momentum = momentum
        self._groups = None if groups is None else to_device(groups, self.centroids.device)

    def losses(self, features: Tensor, labels: Tensor) -> Tensor:
        """Each image's cross-entropy of the similarities to the centroids, divided by the temperature.

        Args:
            features: (B, D), L2-normalised here; the gradient flows to them only.
            labels: (B,) cluster of each, on the same device.

        Returns:
            (B,).
        """
        logits = normalize(features) @ self.centroids.T / self.temperature
        if self._groups is not None:
            logits = logits.masked_fill(self._groups[labels][:, None] != self._groups, -torch.inf)
        return cross_entropy(logits, labels, reduction="none")

    def loss(self, features: Tensor, labels: Tensor, weights: Tensor | npt.ArrayLike | None = None) -> Tensor:
        """Weighted mean of `losses` over the batch.

        Args:
            features: (B, D).
            labels: (B,) cluster of each.
            weights: (K,) weight of each cluster; see `losses.image_shares`.
        """
        features, labels = torch.as_tensor(features), torch.as_tensor(labels)
        shares = image_shares(labels.cpu().numpy(), None if weights is None else np.asarray(weights))
        losses = self.losses(features, labels)
        return (torch.from_numpy(shares).to(losses) * losses).sum()

    @torch.no_grad()
    def update(self, features: Tensor, labels: npt.ArrayLike | Tensor, mode: UpdateMode = "all") -> None:
        """Move the rows of the batch's clusters towards its features.

        Labels are wanted on the host: all that depends on them alone is worked out there, and a GPU is
        never waited for.

        Args:
            features: (B, D), L2-normalised here.
            labels: (B,) cluster of each.
            mode: ``all``: every image in batch order, M_y <- normalise(m M_y + (1 - m) f). ``hard``:
                per cluster only the member least similar to M_y as it stood before (the first of
                equals).
        """
        features, targets = torch.as_tensor(features), np.asarray(labels)
        clusters, cluster, counts = np.unique(targets, return_inverse=True, return_counts=True)
        starts = np.cumsum(counts) - counts
        by_cluster = np.argsort(cluster, kind="stable")
        if mode == "hard":
            centroids = self.centroids[self._here(targets)]
            by_similarity = (normalize(features) * centroids).sum(dim=1).argsort(stable=True)
            order = self._here(targets)[by_similarity].argsort(stable=True)  # by cluster, then similarity
            chosen = by_similarity[order][self._here(starts)]
            turns, sizes, place = chosen, [len(clusters)], self._here(np.arange(len(clusters)))
        else:
            # Clusters do not touch each other: the n-th images of all clusters move their rows together.
            turn = np.arange(len(targets)) - starts[cluster[by_cluster]]
            by_turn = by_cluster[np.argsort(turn, kind="stable")]
            sizes = np.bincount(turn).tolist()
            turns, place = self._here(by_turn), self._here(cluster[by_turn])
        moves = features.index_select(0, turns)
        moves *= (1 - self.momentum) / _length(moves)
        which = self._here(clusters)
        rows = self.centroids.index_select(0, which)
        # A row's length is not taken out of it but out of the share that the next turn keeps of it.
        share = torch.full_like(rows[:, :1], self.momentum)
        for size, move, row in zip(sizes, moves.split(sizes), place.split(sizes), strict=True):
            if size == len(rows):  # every cluster has an nth image, in its order: no need to pick rows
                torch.addcmul(move, rows, share, out=rows)
                torch.div(self.momentum, _length(rows), out=share)
            else:
                moved = torch.addcmul(move, rows[row], share[row])
                rows[row], share[row] = moved, self.momentum / _length(moved)
        self.centroids.index_copy_(0, which, normalize(rows))

    def _here(self, positions: npt.NDArray[Any]) -> Tensor:
        return to_device(positions, self.centroids.device)


def _length(rows: Tensor) -> Tensor:
    """(B, 1), never 0."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return lengths.clamp_min_(1e-12)
