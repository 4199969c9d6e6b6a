"""Global clustering: communities that Infomap finds in a graph of neighbours."""

from __future__ import annotations

# FAISS has to be loaded before Infomap: in the other order the interpreter crashes.
import calr_cli.distances.knn  # noqa: F401  isort: skip

import numpy as np
import numpy.typing as npt
from scipy import sparse

from calr_cli.clustering.links import links
from calr_cli.errors import ConfigError
from calr_cli.types import OUTLIER, IntArray, Neighbours

try:
    import infomap
except ImportError:  # its licence is not everybody's: the other clustering does without it
    HAS_INFOMAP = False
else:
    HAS_INFOMAP = True

LOWEST_BAR = 0.1
"""Pairs with a lower Jaccard similarity are never linked."""

_BARS = (LOWEST_BAR, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)


def infomap_labels(
    neighbours: Neighbours, min_similarity: float, min_cluster_size: int = 5, seed: int = 123
) -> IntArray:
    """Labels from two-level directed Infomap on the links to neighbours that are similar enough.

    Args:
        neighbours: Neighbours of N images; an image may be among its own neighbours.
        min_similarity: Links below it are left out.
        min_cluster_size: Smaller clusters become outliers.
        seed: Seed of Infomap's own generator.

    Returns:
        (N,) labels: 0..K-1, or ``OUTLIER`` for images without links and members of small clusters.

    Raises:
        ConfigError: Infomap is not installed.
    """
    linked = links(neighbours, min_similarity)
    rows = np.nonzero(linked)[0]
    found = np.column_stack([rows, neighbours.indices[linked], neighbours.similarities[linked]])
    return _communities(found, len(linked), min_cluster_size, seed, directed=True)


def jaccard_communities(
    similarity: sparse.csr_array, max_outliers: float, min_cluster_size: int = 5, seed: int = 123
) -> IntArray:
    """Labels from two-level undirected Infomap on Jaccard similarities, with the strictest possible links.

    A link needs a similarity of at least .5. If that leaves out more than ``max_outliers`` of the images, the
    threshold falls to the first of .45, .4, ... `LOWEST_BAR` that does not. So the threshold rises by itself
    as features improve. While features are bad, a constant threshold would leave out nearly all images, or
    none.

    Args:
        similarity: (N, N) symmetric CSR in 0..1 without the diagonal; entries below `LOWEST_BAR` may be
            left out.
        max_outliers: Largest share of the images that may be outliers.
        min_cluster_size: Smaller clusters become outliers.
        seed: Seed of Infomap's own generator.

    Returns:
        (N,) labels: 0..K-1, or ``OUTLIER``; more outliers than ``max_outliers`` if even the lowest
        threshold leaves out too many images.

    Raises:
        ConfigError: Infomap is not installed.
    """
    pairs = sparse.triu(similarity, k=1, format="coo")
    found = np.column_stack([pairs.row, pairs.col, pairs.data])

    def labels_at(bar: float) -> IntArray:
        linked = found[found[:, 2] >= bar]
        return _communities(linked, similarity.shape[0], min_cluster_size, seed, directed=False)

    best, low, high = None, 0, len(_BARS)  # halving: each look is a whole run of Infomap
    while low < high:
        middle = (low + high) // 2
        labels = labels_at(_BARS[middle])
        if (labels == OUTLIER).mean() <= max_outliers:
            best, low = labels, middle + 1
        else:
            high = middle
    return labels if best is None else best  # without a good one, the last look was at the lowest bar


def _communities(
    found: npt.NDArray[np.float64], count: int, min_cluster_size: int, seed: int, directed: bool
) -> IntArray:
    """Labels of ``count`` images from links (L, 3): image, image, weight."""
    if not HAS_INFOMAP:
        raise ConfigError(
            "Infomap is not installed",
            "Install infomap, or cluster with --set inter.clustering.method=dbscan",
        )
    labels = np.full(count, OUTLIER, np.int64)
    if not len(found):
        return labels  # Infomap refuses an empty network
    network = infomap.Network()
    network.add_links(found)
    result = infomap.run(network, two_level=True, directed=directed, seed=seed, num_trials=1)
    modules = dict(result.modules())
    nodes = np.fromiter(modules.keys(), np.int64)
    ids = np.fromiter(modules.values(), np.int64)
    _, module, size = np.unique(ids, return_inverse=True, return_counts=True)
    kept = size >= min_cluster_size
    number = np.where(kept, kept.cumsum() - 1, OUTLIER)
    labels[nodes] = number[module]
    return labels
