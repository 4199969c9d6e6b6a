"""The labels of one epoch of stage 2: global clusters, pivots, refinement; and what to say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calr_cli.clustering.criterion import label_criterion
from calr_cli.clustering.dbscan import dbscan_labels
from calr_cli.clustering.infomap import LOWEST_BAR, infomap_labels, jaccard_communities
from calr_cli.clustering.pivots import neighbourhood_scores, select_pivots
from calr_cli.clustering.quality import label_quality
from calr_cli.clustering.refinement import cosine_probability, discards_by_schedule, refine_by_camera
from calr_cli.config.schema import InterClustering, Settings
from calr_cli.distances.camera_shift import standardise_by_camera
from calr_cli.distances.jaccard import jaccard_similarity
from calr_cli.errors import TrainingError
from calr_cli.events import Reporter
from calr_cli.method.build import search_neighbours
from calr_cli.method.estimates import memory_limit
from calr_cli.training.reproducibility import keyed_rng
from calr_cli.types import OUTLIER, FloatArray, IntArray, Neighbours


@dataclass(frozen=True)
class EpochLabels:
    """The labels of one epoch: (N,) global and refined ones, (K,) pivots; and how good they look.

    Attributes:
        criterion: The higher, the better the model that they were made with; knows no identities.
    """

    global_labels: IntArray
    refined_labels: IntArray
    pivots: IntArray
    criterion: float

    def to_tensors(self) -> dict[str, Tensor]:
        """As a resume state keeps them."""
        tensors = {name: torch.as_tensor(value) for name, value in vars(self).items() if name != "criterion"}
        return {**tensors, "criterion": torch.tensor(self.criterion, dtype=torch.float64)}

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> EpochLabels:
        """What `to_tensors` gave."""
        arrays = {name: tensor.numpy() for name, tensor in tensors.items() if name != "criterion"}
        return EpochLabels(**arrays, criterion=float(tensors["criterion"]))


def label_epoch(
    settings: Settings,
    features: FloatArray,
    camids: IntArray,
    local_labels: IntArray | None,
    epoch: int,
    device: torch.device,
    reporter: Reporter,
) -> EpochLabels:
    """Global clusters of the features, their pivots, and the clusters refined by local labels.

    Raises:
        ConfigError: FAISS or Infomap is asked for and is not installed.
        DataError: A feature that is not a finite number.
        MemoryLimitError: Something does not fit into the memory allowed.
    """
    clustering, refinement = settings.inter.clustering, settings.inter.refinement
    global_labels, neighbours = global_clusters(settings, features, camids, device, reporter)
    # Jaccard distances say by themselves which neighbours count.
    min_similarity = 0.0 if clustering.method == "jaccard" else clustering.min_similarity
    scores = neighbourhood_scores(neighbours, min_similarity)
    pivots = select_pivots(global_labels, scores, refinement.pivot)
    refined_labels = global_labels
    if refinement.enabled:
        assert local_labels is not None
        refined_labels = refine_by_camera(global_labels, local_labels, camids, pivots)
        if refinement.schedule == "cosine":
            refined_labels = discards_by_schedule(
                global_labels,
                refined_labels,
                cosine_probability(epoch, settings.inter.epochs),
                keyed_rng(settings.seed, "inter", epoch, "discards"),
            )
    criterion = label_criterion(neighbours, global_labels, camids)
    return EpochLabels(global_labels, refined_labels, pivots, criterion)


def global_clusters(
    settings: Settings, features: FloatArray, camids: IntArray, device: torch.device, reporter: Reporter
) -> tuple[IntArray, Neighbours]:
    """Clusters over all cameras, and the nearest neighbours that they were made with.

    Args:
        settings: Those of stage 2 say how.
        features: (N, D) unit rows.
        camids: (N,).
        device: Where neighbours are searched.
        reporter: Told what happens.

    Returns:
        (N,) labels, 0..K-1 or ``OUTLIER``; the ``inter.clustering.k`` nearest, of features standardised by
        camera if the settings say so.

    Raises:
        ConfigError: FAISS or Infomap is asked for and is not installed.
        DataError: A feature that is not a finite number.
        MemoryLimitError: Something does not fit into the memory allowed.
    """
    clustering = settings.inter.clustering
    jaccard = clustering.method != "infomap"
    if clustering.standardise:
        features = standardise_by_camera(features, camids)
    wanted = max(clustering.k, clustering.k1, clustering.k2) if jaccard else clustering.k
    found = search_neighbours(settings, features, wanted, device, reporter)
    neighbours = Neighbours(found.indices[:, : clustering.k], found.similarities[:, : clustering.k])
    if not jaccard:
        labels = infomap_labels(neighbours, clustering.min_similarity, clustering.min_cluster_size)
        return labels, neighbours
    similarity = jaccard_similarity(
        features,
        clustering.k1,
        clustering.k2,
        neighbours=found,
        min_similarity=1 - clustering.eps if clustering.method == "dbscan" else LOWEST_BAR,
        memory_limit=memory_limit(settings),
        reporter=reporter,
    )
    if clustering.method == "dbscan":
        return dbscan_labels(similarity, clustering.eps, clustering.min_samples), neighbours
    return jaccard_communities(similarity, clustering.max_outliers, clustering.min_cluster_size), neighbours


def remedies(clustering: InterClustering) -> tuple[str, str]:
    """Which settings to move for more links between images, and which for fewer."""
    if clustering.method == "dbscan":
        return "raise inter.clustering.eps", "lower inter.clustering.eps"
    if clustering.method == "jaccard":
        return (
            "lower inter.clustering.min_cluster_size",
            "raise inter.clustering.max_outliers or lower inter.clustering.k1",
        )
    return (
        "lower inter.clustering.min_similarity or inter.clustering.min_cluster_size",
        "raise inter.clustering.min_similarity or lower inter.clustering.k",
    )


def check_clusters(labels: EpochLabels, settings: Settings, reporter: Reporter) -> None:
    """Warn of one cluster that holds most images.

    Raises:
        TrainingError: Fewer than two clusters.
    """
    more_links, fewer_links = remedies(settings.inter.clustering)
    sizes = np.bincount(labels.global_labels[labels.global_labels != OUTLIER])
    if not len(sizes):
        raise TrainingError(
            f"all {len(labels.global_labels)} images are outliers: there is no cluster to train on",
            more_links.capitalize(),
        )
    if len(sizes) == 1:
        raise TrainingError(
            f"one cluster holds all {sizes[0]} clustered images: there is nothing to tell apart",
            fewer_links.capitalize(),
        )
    if sizes.max() > len(labels.global_labels) / 2:
        reporter.warning(
            f"one cluster holds {sizes.max()} of {len(labels.global_labels)} images: {fewer_links}"
        )


def label_counts(labels: EpochLabels) -> dict[str, int]:
    """Clusters, outliers, discarded images and clusters without a pivot."""
    return {
        "clusters": len(labels.pivots),
        "outliers": int((labels.global_labels == OUTLIER).sum()),
        "discarded": int((labels.global_labels != labels.refined_labels).sum()),
        "without_pivot": int((labels.pivots < 0).sum()),
    }


def refinement_quality(labels: EpochLabels, pids: IntArray) -> dict[str, Any]:
    """Label quality before and after refinement, on the same images.

    ``clustered``: all images in global clusters, discarded ones counting as singletons after;
    ``kept``: only the images that refinement leaves. ``discarded_right`` is the share of discarded
    images whose identity is not their pivot's.
    """
    clustered = labels.global_labels != OUTLIER
    kept = labels.refined_labels != OUTLIER
    discarded = clustered & ~kept
    wrong = pids[discarded] != pids[labels.pivots[labels.global_labels[discarded]]]
    return {
        name: {
            "before": asdict(label_quality(labels.global_labels[on], pids[on])),
            "after": asdict(label_quality(labels.refined_labels[on], pids[on])),
        }
        for name, on in (("clustered", clustered), ("kept", kept))
    } | {"discarded_right": float(wrong.mean()) if len(wrong) else None}
