"""Global clustering: communities of the neighbour graph by Infomap."""

from __future__ import annotations

# FAISS has to be loaded before Infomap: in the other order the interpreter crashes.
import calr_cli.distances.knn  # noqa: F401  isort: skip

import numpy as np
import numpy.typing as npt

from calr_cli.errors import ConfigError
from calr_cli.types import OUTLIER, IntArray, Neighbours

try:
    import infomap
except ImportError:  # its licence is not everybody's: the other clustering does without it
    HAS_INFOMAP = False
else:
    HAS_INFOMAP = True


def infomap_labels(
    neighbours: Neighbours, min_similarity: float, min_cluster_size: int = 5, seed: int = 123
) -> IntArray:
    """Two-level directed Infomap on the links to neighbours that are similar enough.

    Args:
        neighbours: Of N images; the image itself may be among its own.
        min_similarity: Links below it are left out.
        min_cluster_size: Smaller clusters become outliers.
        seed: Of Infomap's own generator.

    Returns:
        (N,) labels: 0..K-1, or ``OUTLIER`` for isolates and members of small clusters.

    Raises:
        ConfigError: Infomap is not installed.
    """
    if not HAS_INFOMAP:
        raise ConfigError(
            "Infomap is not installed",
            "Install infomap, or cluster with --set inter.clustering.method=dbscan",
        )
    count = len(neighbours.indices)
    labels = np.full(count, OUTLIER, np.int64)
    linked = links(neighbours, min_similarity)
    rows = np.nonzero(linked)[0]
    if not len(rows):
        return labels  # Infomap refuses an empty network
    network = infomap.Network()
    network.add_links(
        np.column_stack(
            [
                rows.astype(np.float64),
                neighbours.indices[linked].astype(np.float64),
                neighbours.similarities[linked].astype(np.float64),
            ]
        )
    )
    result = infomap.run(network, two_level=True, directed=True, seed=seed, num_trials=1)
    modules = dict(result.modules())
    nodes = np.fromiter(modules.keys(), np.int64)
    ids = np.fromiter(modules.values(), np.int64)
    _, module, size = np.unique(ids, return_inverse=True, return_counts=True)
    kept = size >= min_cluster_size
    number = np.where(kept, kept.cumsum() - 1, OUTLIER)
    labels[nodes] = number[module]
    return labels


def links(neighbours: Neighbours, min_similarity: float) -> npt.NDArray[np.bool_]:
    """(N, k) bool: which neighbours are linked, those similar enough and not the image itself."""
    itself = np.arange(len(neighbours.indices))[:, None]
    linked: npt.NDArray[np.bool_] = (neighbours.indices != itself) & (
        neighbours.similarities >= min_similarity
    )
    return linked
