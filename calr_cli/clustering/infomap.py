"""Global clustering: communities that Infomap finds in a graph of neighbours."""

from __future__ import annotations

# FAISS has to be loaded before Infomap: in the other order the interpreter crashes.
import calr_cli.distances.knn  # noqa: F401  isort: skip

import numpy as np
import numpy.typing as npt

from calr_cli.clustering.communities import large_modules
from calr_cli.clustering.links import links
from calr_cli.errors import ConfigError
from calr_cli.types import OUTLIER, IntArray, Neighbours

try:
    import infomap
except ImportError:  # an extra, for its licence is not everybody's
    HAS_INFOMAP = False
else:
    HAS_INFOMAP = True

INSTALL = "Install it with: pip install 'calr-cli[infomap]'"


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
    return large_modules(infomap_modules(found, len(linked), seed, directed=True), min_cluster_size)


def infomap_modules(
    found: npt.NDArray[np.float64], count: int, seed: int = 123, *, directed: bool
) -> IntArray:
    """Modules of two-level Infomap.

    Args:
        found: (L, 3): image, image, weight.
        count: Number of images.
        seed: Seed of Infomap's own generator.
        directed: Whether a link leads only from its first image to its second.

    Returns:
        (count,) Infomap's numbers of the modules; ``OUTLIER`` for images without links.

    Raises:
        ConfigError: Infomap is not installed.
    """
    require_infomap()
    modules = np.full(count, OUTLIER, np.int64)
    if not len(found):
        return modules  # Infomap refuses an empty network
    network = infomap.Network()
    network.add_links(found)
    result = infomap.run(network, two_level=True, directed=directed, seed=seed, num_trials=1)
    of_nodes = dict(result.modules())
    nodes = np.fromiter(of_nodes.keys(), np.int64)
    modules[nodes] = np.fromiter(of_nodes.values(), np.int64)
    return modules


def require_infomap() -> None:
    """Raise if Infomap is not installed.

    Raises:
        ConfigError: It is not.
    """
    if not HAS_INFOMAP:
        raise ConfigError(
            "inter.clustering.method = infomap: Infomap is not installed",
            f"{INSTALL}, or do without it by --set inter.clustering.method=jaccard, as --recipe plus does",
        )
