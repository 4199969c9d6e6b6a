"""The clusters of one camera's images, as both kinds of stage 1 make them."""

from __future__ import annotations

import torch
from scipy import sparse

from calr_cli.clustering.agglomerative import DENSE_BOUND, best_by_silhouette
from calr_cli.config.schema import Settings
from calr_cli.distances.jaccard import jaccard_distance, jaccard_similarity
from calr_cli.events import Reporter
from calr_cli.method.build import search_neighbours
from calr_cli.method.estimates import memory_limit
from calr_cli.types import FloatArray, IntArray

_SMALLEST, _RATIO = 2.0, 1.25
"""Mean sizes of clusters that are tried: the smallest, and each to the one before it."""


def cluster_counts(settings: Settings, num_images: int, reporter: Reporter) -> list[int]:
    """Numbers of clusters that a camera's images may be cut into; none if there are too few images.

    A number that is asked for, or a fifth of the images; or, to be chosen from by silhouette, those of mean
    sizes from 2 on.
    """
    clustering = settings.intra.clustering
    if clustering.num_clusters is None and clustering.choice == "silhouette":
        counts, size = [], _SMALLEST
        while (count := int(num_images / size)) > 1:
            counts.append(count)
            size *= _RATIO
        return list(dict.fromkeys(counts))
    wanted = num_images // 5 if clustering.num_clusters is None else clustering.num_clusters
    num_clusters = min(wanted, num_images - 1)
    if num_clusters > num_images // 2:
        reporter.warning(
            f"{num_clusters} clusters for {num_images} images leave most of them alone: "
            "lower intra.clustering.num_clusters"
        )
    return [num_clusters] if num_clusters > 1 else []


def camera_clusters(
    settings: Settings, features: FloatArray, counts: list[int], device: torch.device, reporter: Reporter
) -> tuple[IntArray, float]:
    """Labels of one camera's images, of all numbers in ``counts`` those with the best silhouette, and that.

    Raises:
        ConfigError: FAISS is asked for and is not installed.
        DataError: A feature that is not a finite number.
        MemoryLimitError: Something does not fit into the memory allowed.
    """
    return best_by_silhouette(_distances(settings, features, device, reporter), counts)


def _distances(
    settings: Settings, features: FloatArray, device: torch.device, reporter: Reporter
) -> FloatArray | sparse.csr_array:
    """Jaccard distances of a camera: a matrix while that is small, else similarities where there are any."""
    k1, k2 = settings.intra.clustering.k1, settings.intra.clustering.k2
    found = search_neighbours(settings, features, max(k1, k2), device, reporter)
    limit = memory_limit(settings)
    if len(features) <= DENSE_BOUND:
        return jaccard_distance(features, k1, k2, neighbours=found, memory_limit=limit)
    return jaccard_similarity(features, k1, k2, neighbours=found, memory_limit=limit, reporter=reporter)
