"""Cluster centroids, the rows that a memory starts from."""

from __future__ import annotations

import numpy as np
from sklearn.preprocessing import normalize

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
    sums = np.zeros((int(labels.max(initial=OUTLIER)) + 1, features.shape[1]), np.float64)
    np.add.at(sums, labels[kept], features[kept])
    result: FloatArray = normalize(sums).astype(np.float32)  # the mean's length does not matter
    return result
