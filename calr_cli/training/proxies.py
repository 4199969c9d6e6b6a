"""Camera proxies: what a cluster looks like to each of its cameras, and the loss against them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from calr_cli.clustering.centroids import cluster_centroids
from calr_cli.training.memory import ClusterMemory
from calr_cli.transfer import to_device
from calr_cli.types import OUTLIER, FloatArray, IntArray


@dataclass(frozen=True)
class CameraProxies:
    """A memory row for every camera of every cluster; an image is drawn to those of its cluster.

    A cluster's mean hides that its images differ by camera. Here each image is compared with the rows of
    its cluster in every camera, one at a time, against the most similar rows of other clusters. Makes the
    term of each epoch, see `objective.Loss`.

    Source: Wang et al., "Camera-Aware Proxies for Unsupervised Person Re-Identification", AAAI 2021.

    Differs from the source: every image has the rows of all its cluster's cameras for positives in each
    epoch, and the rows move towards every image of a batch, as the cluster memory's do by default.

    Attributes:
        weight: Factor of this loss.
        momentum: Share of the OLD row in an update.
        temperature: Divides the similarities.
        num_negatives: Most similar rows of other clusters that an image is told apart from.
    """

    weight: float
    momentum: float
    temperature: float
    num_negatives: int

    def start(self, features: FloatArray, labels: IntArray, camids: IntArray) -> FloatArray:
        """(P, D) the mean features, L2-normalised, of each cluster in each camera."""
        return cluster_centroids(features, proxy_labels(labels, camids))

    def __call__(self, rows: Tensor, labels: IntArray, camids: IntArray) -> ProxyTerm:
        """The term of an epoch whose proxies start from ``rows`` (P, D)."""
        return ProxyTerm(self, rows, labels, camids)


class ProxyTerm:
    """The loss against the camera proxies of one epoch."""

    def __init__(self, options: CameraProxies, rows: Tensor, labels: IntArray, camids: IntArray) -> None:
        self.weight, self.num_negatives = options.weight, options.num_negatives
        self._memory = ClusterMemory(rows, options.temperature, options.momentum)
        self._labels, self._proxies = labels, proxy_labels(labels, camids)
        cluster = np.empty(len(rows), np.int64)
        kept = self._proxies != OUTLIER
        cluster[self._proxies[kept]] = labels[kept]
        self._cluster = to_device(cluster, rows.device)

    @property
    def rows(self) -> Tensor:
        """(P, D), as they are now."""
        return self._memory.centroids

    def losses(self, features: Tensor, positions: IntArray) -> Tensor:
        """Each image's mean over its cluster's proxies p of -log(e^p / (e^p + sum over negatives n of e^n)).

        Args:
            features: (B, D), L2-normalised here; the gradient flows to them only.
            positions: (B,) which images they are of.

        Returns:
            (B,).
        """
        labels = to_device(self._labels[positions], features.device)
        logits = normalize(features) @ self.rows.T / self._memory.temperature
        own = self._cluster == labels[:, None]
        others = logits.masked_fill(own, -torch.inf)
        hardest = others.topk(min(self.num_negatives, others.shape[1]), dim=1).values
        negatives = hardest.logsumexp(dim=1, keepdim=True)
        losses = torch.logaddexp(logits, negatives) - logits
        mean: Tensor = losses.masked_fill(~own, 0).sum(dim=1) / own.sum(dim=1)
        return mean

    def update(self, features: Tensor, positions: IntArray) -> None:
        """Move the rows of the images in ``positions`` (B,) towards their features (B, D)."""
        self._memory.update(features, self._proxies[positions])


def proxy_labels(labels: IntArray, camids: IntArray) -> IntArray:
    """(N,) one number 0..P-1 for each cluster in each camera, ``OUTLIER`` for outliers.

    >>> import numpy as np
    >>> proxy_labels(np.array([0, 0, -1, 1, 0]), np.array([0, 1, 0, 0, 1])).tolist()
    [0, 1, -1, 2, 1]
    """
    kept = labels != OUTLIER
    proxies = np.full(len(labels), OUTLIER, np.int64)
    pairs = np.stack([labels[kept], camids[kept]], axis=1)
    proxies[kept] = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
    return proxies
