"""Average-linkage clustering of one camera's images, and the silhouette of the clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.metrics import silhouette_score

from calr_cli.clustering.sparse_linkage import sparse_linkage, sparse_silhouette
from calr_cli.types import IntArray

DENSE_BOUND = 4_000
"""Number of images up to which dense distances are as fast as sparse similarities, and small (0.2 GB)."""


_SMALLEST, _RATIO = 2.0, 1.25
"""Mean sizes of clusters that are tried: the smallest, and each to the one before it."""


def agglomerative_labels(distmat: npt.ArrayLike | sparse.sparray, num_clusters: int) -> IntArray:
    """Average-linkage agglomerative clustering; every image gets a cluster.

    The function merges the nearest two clusters until ``num_clusters`` are left. Among equally near pairs,
    the pair with the lowest smallest members merges first, so the partition is defined even if many distances
    are exactly 1.

    Args:
        distmat: Dense, (N, N) symmetric distances. Or a SciPy sparse array of (N, N) symmetric
            SIMILARITIES in 0..1, both triangles stored, the diagonal not: the distance of two images is
            1 - similarity, and exactly 1 where nothing is stored.
        num_clusters: Number of clusters to make, 1..N.

    Returns:
        (N,) labels 0..num_clusters-1, numbered by smallest member.

    Raises:
        ValueError: ``num_clusters`` is not in 1..N.

    >>> agglomerative_labels([[0, 1, 9], [1, 0, 9], [9, 9, 0]], 2).tolist()
    [0, 0, 1]
    """
    return agglomerative_partitions(distmat, [num_clusters])[0]


def agglomerative_partitions(pairs: npt.ArrayLike | sparse.sparray, counts: Sequence[int]) -> list[IntArray]:
    """`agglomerative_labels` for several numbers of clusters, from one hierarchy that is cut at each.

    Args:
        pairs: Distances or similarities as in `agglomerative_labels`.
        counts: Numbers of clusters, each 1..N.

    Returns:
        (N,) labels for each of ``counts``.

    Raises:
        ValueError: A number is not in 1..N.
    """
    array = _as_similarities(pairs) if sparse.issparse(pairs) else np.asarray(pairs)
    for num_clusters in counts:
        if not 1 <= num_clusters <= array.shape[0]:
            raise ValueError(f"num_clusters is {num_clusters}, expected 1..{array.shape[0]}")
    linkage = sparse_linkage if sparse.issparse(pairs) else _dense_linkage
    return linkage(array, counts)


def cluster_counts(num_images: int, num_clusters: int | None = None) -> list[int]:
    """K_c of the method: how many clusters a camera's images are cut into.

    Args:
        num_images: N_c, images of the camera.
        num_clusters: The number asked for; None: a fifth of the images, rounded down.

    Returns:
        One number from 2 to N_c - 1, in a list; an empty list where there are too few images for two.
    """
    wanted = num_images // 5 if num_clusters is None else num_clusters
    count = min(wanted, num_images - 1)
    return [count] if count > 1 else []


def candidate_counts(num_images: int) -> list[int]:
    """The numbers of clusters that the silhouette chooses from: mean sizes of 2, 2.5, 3.1, ... images."""
    counts, size = [], _SMALLEST
    while (count := int(num_images / size)) > 1:
        counts.append(count)
        size *= _RATIO
    return list(dict.fromkeys(counts))


def best_by_silhouette(
    pairs: npt.NDArray[np.float32] | sparse.csr_array, counts: Sequence[int]
) -> tuple[IntArray, float]:
    """The partition with the best silhouette for the numbers of clusters in ``counts``, and its silhouette.

    Args:
        pairs: Distances or similarities as in `agglomerative_labels`.
        counts: Numbers of clusters to choose from; among equally good numbers, the first wins.

    Returns:
        (N,) labels, and their `silhouette`.
    """
    partitions = agglomerative_partitions(pairs, counts)
    scores = [silhouette(pairs, labels) for labels in partitions]
    best = int(np.argmax(scores))
    return partitions[best], scores[best]


def _as_similarities(array: sparse.sparray) -> sparse.csr_array:
    similarities = sparse.csr_array(array)  # copies nothing that is in this form already
    return similarities if similarities.dtype.kind == "f" else similarities.astype(np.float32)


def _dense_linkage(distances: npt.NDArray[Any], counts: Sequence[int]) -> list[IntArray]:
    # Sums over the pairs of two clusters, not their averages: sums of float32 distances are exact in
    # float64, so that equal averages compare equal. A cluster lives in the row of its smallest member,
    # so "first in the matrix" is the tie rule.
    sums = distances.astype(np.float64)
    count = len(sums)
    np.fill_diagonal(sums, np.inf)
    sizes = np.ones(count)
    owner = np.arange(count)
    alive = np.ones(count, bool)
    nearest = sums.argmin(axis=1)
    nearest_distance = sums[owner, nearest]
    partitions = {count: owner.copy()}
    for left in range(count - 1, min(counts) - 1, -1):
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
        averages = sums[stale] / (sizes[stale, None] * sizes)
        nearest[stale] = averages.argmin(axis=1)
        nearest_distance[stale] = averages.min(axis=1)
        nearest[first] = merged.argmin()
        nearest_distance[first] = merged[nearest[first]]
        # Average linkage never brings a cluster nearer than both its parts were, but it can tie.
        tied = alive & (merged == nearest_distance) & (first < nearest)
        nearest[tied] = first
        if left in counts:
            partitions[left] = owner.copy()
    return [np.unique(partitions[n], return_inverse=True)[1].astype(np.int64) for n in counts]


def silhouette(pairs: npt.NDArray[np.float32] | sparse.sparray, labels: IntArray) -> float:
    """Mean silhouette of a clustering in -1..1: label-free quality; singletons count 0.

    A partition into one cluster, or into singletons only, has no silhouette and counts 0.

    Args:
        pairs: Dense, (N, N) distances with diagonal exactly 0; or sparse similarities, as
            ``agglomerative_labels`` takes them.
        labels: (N,) cluster labels.
    """
    classes, labels = np.unique(labels, return_inverse=True)
    if not 1 < len(classes) < len(labels):
        return 0.0
    if sparse.issparse(pairs):
        return sparse_silhouette(_as_similarities(pairs), labels)
    return float(silhouette_score(pairs, labels, metric="precomputed"))
