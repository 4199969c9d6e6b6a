"""Average-linkage clustering within one camera."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.metrics import silhouette_score

from calr_cli.types import IntArray


def agglomerative_labels(distmat: npt.ArrayLike, num_clusters: int) -> IntArray:
    """Average-linkage agglomerative clustering of a distance matrix; every image gets a cluster.

    Merges the nearest two clusters until ``num_clusters`` are left. Of equally near pairs, the one
    with the lowest smallest members merges first, so the partition is defined also where many
    distances are exactly 1.

    Args:
        distmat: (N, N) symmetric distances.
        num_clusters: Clusters to make, 1..N.

    Returns:
        (N,) labels 0..num_clusters-1, numbered by smallest member.

    Raises:
        ValueError: ``num_clusters`` is not in 1..N.

    >>> agglomerative_labels([[0, 1, 9], [1, 0, 9], [9, 9, 0]], 2).tolist()
    [0, 0, 1]
    """
    # Sums over the pairs of two clusters, not their averages: sums of float32 distances are exact in
    # float64, so that equal averages compare equal. A cluster lives in the row of its smallest member,
    # so "first in the matrix" is the tie rule.
    sums = np.asarray(distmat).astype(np.float64)
    count = len(sums)
    if not 1 <= num_clusters <= count:
        raise ValueError(f"num_clusters is {num_clusters}, expected 1..{count}")
    np.fill_diagonal(sums, np.inf)
    sizes = np.ones(count)
    owner = np.arange(count)
    alive = np.ones(count, bool)
    nearest = sums.argmin(axis=1)
    nearest_distance = sums[owner, nearest]
    for _ in range(count - num_clusters):
        first = int(nearest_distance.argmin())
        second = int(nearest[first])
        sums[first] += sums[second]
        sums[:, first] = sums[first]
        sums[second], sums[:, second] = np.inf, np.inf
        sizes[first] += sizes[second]
        owner[owner == second] = first
        alive[second] = False
        nearest_distance[second] = np.inf
        merged = sums[first] / (sizes[first] * sizes)

        stale = np.flatnonzero(alive & ((nearest == first) | (nearest == second)))
        distances = sums[stale] / (sizes[stale, None] * sizes)
        nearest[stale] = distances.argmin(axis=1)
        nearest_distance[stale] = distances.min(axis=1)
        nearest[first] = merged.argmin()
        nearest_distance[first] = merged[nearest[first]]
        # Average linkage never brings a cluster nearer than both its parts were, but it can tie.
        tied = alive & (merged == nearest_distance) & (first < nearest)
        nearest[tied] = first
    return np.unique(owner, return_inverse=True)[1].astype(np.int64)


def silhouette(distmat: npt.NDArray[np.float32], labels: IntArray) -> float:
    """Mean silhouette of a clustering in -1..1: label-free quality; singletons count 0.

    A partition of one cluster, or of singletons only, has no silhouette and counts 0.

    Args:
        distmat: (N, N) distances with diagonal exactly 0.
        labels: (N,) cluster labels.
    """
    if not 1 < len(np.unique(labels)) < len(labels):
        return 0.0
    return float(silhouette_score(distmat, labels, metric="precomputed"))
