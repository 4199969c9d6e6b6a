"""Global clusterings: how stage 2 groups the images of all cameras.

A clustering of one's own (docs/extend.md) enters by the same door as the published one and that of ``plus``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from scipy import sparse

from calr_cli.clustering.communities import LOWEST_BAR, FindModules, jaccard_communities
from calr_cli.clustering.dbscan import dbscan_labels
from calr_cli.clustering.infomap import (
    HAS_INFOMAP,
    INSTALL,
    infomap_labels,
    infomap_modules,
    require_infomap,
)
from calr_cli.clustering.map_equation import map_equation_modules
from calr_cli.config.schema import Settings
from calr_cli.distances.jaccard import jaccard_similarity
from calr_cli.events import Reporter
from calr_cli.method.estimates import memory_limit
from calr_cli.method.plugin import called, checked_labels, load_plugin
from calr_cli.types import FloatArray, IntArray, Neighbours

Cluster = Callable[[FloatArray, IntArray, Neighbours], IntArray]
"""From features (N, D), camids (N,) and the nearest neighbours to labels (N,), 0..K-1 or ``OUTLIER``."""


@dataclass(frozen=True)
class GlobalClustering:
    """One way to cluster images over all cameras.

    Attributes:
        cluster: What does it.
        num_neighbours: How many nearest neighbours it wants.
        min_similarity: Of the links that count for a pivot's score.
        more_links: The settings to move where too few images are in clusters.
        fewer_links: The settings to move where one cluster has too many.
    """

    cluster: Cluster
    num_neighbours: int
    min_similarity: float
    more_links: str
    fewer_links: str


def build_clustering(settings: Settings, reporter: Reporter) -> GlobalClustering:
    """The clustering that the settings ask for.

    Args:
        settings: Those of stage 2 and the plugin say which.
        reporter: Told of steps that take long.

    Raises:
        ConfigError: A plugin that cannot be loaded, or Infomap is asked for and not installed.
    """
    if (own := load_plugin(settings.plugin).cluster) is not None:
        return _own(own, settings)
    build = {
        "infomap": _infomap,
        "jaccard": _jaccard_communities,
        "map-equation": _jaccard_communities,
        "dbscan": _dbscan,
    }
    return build[settings.inter.clustering.method](settings, reporter)


def _infomap(settings: Settings, reporter: Reporter) -> GlobalClustering:
    """The published one: Infomap on the links to similar neighbours."""
    require_infomap()
    options = settings.inter.clustering
    return GlobalClustering(
        lambda features, camids, near: infomap_labels(
            near.nearest(options.k), options.min_similarity, options.min_cluster_size
        ),
        num_neighbours=options.k,
        min_similarity=options.min_similarity,
        more_links="lower inter.clustering.min_similarity or inter.clustering.min_cluster_size",
        fewer_links="raise inter.clustering.min_similarity or lower inter.clustering.k",
    )


def community_search() -> FindModules:
    """What finds the communities of ``plus``: Infomap where it is installed, else calr's own search."""
    return partial(infomap_modules, directed=False) if HAS_INFOMAP else map_equation_modules


def _jaccard_communities(settings: Settings, reporter: Reporter) -> GlobalClustering:
    """That of ``plus``: communities of Jaccard similarities, found by Infomap or without it."""
    options = settings.inter.clustering
    find = map_equation_modules if options.method == "map-equation" else community_search()

    def cluster(features: FloatArray, camids: IntArray, near: Neighbours) -> IntArray:
        if options.method == "jaccard" and not HAS_INFOMAP:
            reporter.note(f"Infomap is not installed: calr finds the communities itself. {INSTALL}")
        similarity = _jaccard(settings, features, near, LOWEST_BAR, reporter)
        return jaccard_communities(similarity, options.max_outliers, find, options.min_cluster_size)

    return GlobalClustering(
        cluster,
        num_neighbours=max(options.k, options.k1, options.k2),
        min_similarity=0.0,  # Jaccard distances say by themselves which neighbours count
        more_links="lower inter.clustering.min_cluster_size",
        fewer_links="raise inter.clustering.max_outliers or lower inter.clustering.k1",
    )


def _dbscan(settings: Settings, reporter: Reporter) -> GlobalClustering:
    """That of the ClusterContrast and SpCL family: DBSCAN on Jaccard distances."""
    options = settings.inter.clustering

    def cluster(features: FloatArray, camids: IntArray, near: Neighbours) -> IntArray:
        similarity = _jaccard(settings, features, near, 1 - options.eps, reporter)
        return dbscan_labels(similarity, options.eps, options.min_samples)

    return GlobalClustering(
        cluster,
        num_neighbours=max(options.k, options.k1, options.k2),
        min_similarity=options.min_similarity,
        more_links="raise inter.clustering.eps",
        fewer_links="lower inter.clustering.eps",
    )


def _own(cluster: Callable[[FloatArray, IntArray], IntArray], settings: Settings) -> GlobalClustering:
    """One of the user's own, from features and camids."""
    options, path = settings.inter.clustering, str(settings.plugin)
    where = f"change the clustering in {path}"

    def checked(features: FloatArray, camids: IntArray, near: Neighbours) -> IntArray:
        with called("cluster", path):
            labels = cluster(features, camids)
        return checked_labels(labels, len(features), where)

    return GlobalClustering(
        checked,
        num_neighbours=options.k,
        min_similarity=options.min_similarity,
        more_links=where,
        fewer_links=where,
    )


def _jaccard(
    settings: Settings, features: FloatArray, near: Neighbours, min_similarity: float, reporter: Reporter
) -> sparse.csr_array:
    options = settings.inter.clustering
    return jaccard_similarity(
        features,
        options.k1,
        options.k2,
        neighbours=near,
        min_similarity=min_similarity,
        memory_limit=memory_limit(settings),
        reporter=reporter,
    )
