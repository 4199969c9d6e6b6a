"""Cluster centroids, the rows that a memory starts from."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from calr_cli.types import OUTLIER, FloatArray, IntArray


def cluster_centroids(features: FloatArray, labels: IntArray) -> FloatArray:
    """L2-normalised mean feature of each cluster.

    Args:
        features: (N, D).
        labels: (N,) labels, ``OUTLIER`` or 0..K-1 with every cluster present.

    Returns:
        (K, D) float32 unit rows.
    """
    kept = labels != OUTLIER
    clusters = int(labels.max(initial=OUTLIER)) + 1
    members = sparse.csr_array(
        (np.ones(kept.sum(), np.float32), (labels[kept], np.flatnonzero(kept))),
        shape=(clusters, len(labels)),
    )
    sums = members @ features
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)  # of the sum: the mean's does not matter
    centroids: FloatArray = (sums / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return centroids
