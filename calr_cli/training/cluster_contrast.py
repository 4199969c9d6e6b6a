"""The method's own contrastive loss: images against the memory of the clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from calr_cli.clustering.centroids import cluster_centroids
from calr_cli.training.memory import ClusterMemory, UpdateMode
from calr_cli.transfer import to_device
from calr_cli.types import OUTLIER, FloatArray, IntArray


@dataclass(frozen=True)
class ClusterContrast:
    """Cross-entropy against a cluster memory; makes the term of each epoch, see `objective.Loss`.

    Attributes:
        temperature: Divides the logits.
        momentum: Share of the OLD row in an update.
        mode: Which images of a batch move a row; see `ClusterMemory.update`.
        within_cameras: Whether an image is told apart only from the clusters of its own camera. Clusters
            are within one camera each then.
    """

    temperature: float
    momentum: float
    mode: UpdateMode = "all"
    within_cameras: bool = False

    def start(self, features: FloatArray, labels: IntArray, camids: IntArray) -> FloatArray:
        """(K, D) the clusters' mean features, L2-normalised."""
        return cluster_centroids(features, labels)

    def __call__(self, rows: Tensor, labels: IntArray, camids: IntArray) -> MemoryTerm:
        """The term of an epoch whose memory starts from ``rows`` (K, D)."""
        groups = None
        if self.within_cameras:
            groups, kept = np.empty(len(rows), np.int64), labels != OUTLIER
            groups[labels[kept]] = camids[kept]
        return MemoryTerm(ClusterMemory(rows, self.temperature, self.momentum, groups), labels, self.mode)


class MemoryTerm:
    """The loss against the cluster memory of one epoch; see `objective.Term`.

    Args:
        memory: Its rows are moved.
        labels: (N,) cluster of each image.
        mode: Which images of a batch move a row.
    """

    weight = 1.0

    def __init__(self, memory: ClusterMemory, labels: IntArray, mode: UpdateMode = "all") -> None:
        self._memory, self._labels, self._mode = memory, labels, mode

    @property
    def rows(self) -> Tensor:
        """(K, D), as they are now."""
        return self._memory.centroids

    def losses(self, features: Tensor, positions: IntArray) -> Tensor:
        """(B,) cross-entropies of images at ``positions`` with ``features`` (B, D)."""
        return self._memory.losses(features, to_device(self._labels[positions], features.device))

    def update(self, features: Tensor, positions: IntArray) -> None:
        """Move the rows of the images at ``positions`` (B,) towards their ``features`` (B, D)."""
        self._memory.update(features, self._labels[positions], self._mode)
