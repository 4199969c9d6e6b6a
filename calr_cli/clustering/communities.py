"""Global clustering of ``plus``: communities in a graph of Jaccard similarities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import sparse

from calr_cli.types import OUTLIER, IntArray

FindModules = Callable[[npt.NDArray[np.float64], int], IntArray]
"""From links (L, 3), image, image, weight, and the number of images N to communities (N,), or ``OUTLIER``."""

LOWEST_BAR = 0.1
"""Pairs with a lower Jaccard similarity are never linked."""

_BARS = (LOWEST_BAR, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)


def jaccard_communities(
    similarity: sparse.csr_array, max_outliers: float, find: FindModules, min_cluster_size: int = 5
) -> IntArray:
    """Labels from communities of images that Jaccard similarities link, with the strictest possible links.

    A link needs a similarity of at least .5. If that leaves out more than ``max_outliers`` of the images, the
    threshold falls to the first of .45, .4, ... `LOWEST_BAR` that does not. So the threshold rises by itself
    as features improve. While features are bad, a constant threshold would leave out nearly all images, or
    none.

    Args:
        similarity: (N, N) symmetric CSR in 0..1 without the diagonal; entries below `LOWEST_BAR` may be
            left out.
        max_outliers: Largest share of the images that may be outliers.
        find: What finds the communities.
        min_cluster_size: Smaller clusters become outliers.

    Returns:
        (N,) labels: 0..K-1, or ``OUTLIER``; more outliers than ``max_outliers`` if even the lowest
        threshold leaves out too many images.
    """
    pairs = sparse.triu(similarity, k=1, format="coo")
    found = np.column_stack([pairs.row, pairs.col, pairs.data])

    def labels_at(bar: float) -> IntArray:
        return large_modules(find(found[found[:, 2] >= bar], similarity.shape[0]), min_cluster_size)

    best, low, high = None, 0, len(_BARS)  # halving: each look finds communities anew
    while low < high:
        middle = (low + high) // 2
        labels = labels_at(_BARS[middle])
        if (labels == OUTLIER).mean() <= max_outliers:
            best, low = labels, middle + 1
        else:
            high = middle
    return labels if best is None else best  # without a good one, the last look was at the lowest bar


def large_modules(modules: IntArray, min_cluster_size: int) -> IntArray:
    """Labels 0..K-1 in the order of the modules' numbers; members of small modules become ``OUTLIER``."""
    numbers, module, sizes = np.unique(modules, return_inverse=True, return_counts=True)
    kept = (sizes >= min_cluster_size) & (numbers != OUTLIER)
    labels: IntArray = np.where(kept, kept.cumsum() - 1, OUTLIER)[module]
    return labels
