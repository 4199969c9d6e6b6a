"""The clusters of one camera's images, as both kinds of stage 1 make them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from calr_cli.clustering.agglomerative import (
    DENSE_BOUND,
    best_by_silhouette,
    candidate_counts,
    cluster_counts,
)
from calr_cli.config.schema import Settings
from calr_cli.data.local_labels import unique_over_cameras
from calr_cli.distances.jaccard import jaccard_distance, jaccard_similarity
from calr_cli.events import Reporter
from calr_cli.method.build import search_neighbours
from calr_cli.method.estimates import memory_limit
from calr_cli.types import FloatArray, IntArray


@dataclass(frozen=True)
class LocalLabels:
    """The local labels of an epoch.

    Attributes:
        labels: (N,) unique over cameras.
        silhouettes: Of each camera, by number.
    """

    labels: IntArray
    silhouettes: list[float]

    @property
    def to_train_on(self) -> IntArray:
        """(N,) the labels."""
        return self.labels

    def to_tensors(self) -> dict[str, Tensor]:
        """As a resume state keeps them."""
        silhouettes = torch.tensor(self.silhouettes, dtype=torch.float64)
        return {"labels": torch.from_numpy(self.labels), "silhouettes": silhouettes}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> LocalLabels:
        """What `to_tensors` gave."""
        return cls(tensors["labels"].numpy(), tensors["silhouettes"].tolist())


@dataclass(frozen=True)
class BestLabels:
    """The labels (N_c,) of the epoch with the best silhouette so far."""

    epoch: int
    silhouette: float
    labels: IntArray

    def to_state(self) -> dict[str, Any]:
        """As a resume state keeps them."""
        return {**vars(self), "labels": torch.from_numpy(self.labels)}

    @staticmethod
    def remembered(state: Mapping[str, Any]) -> BestLabels | None:
        """What `to_state` gave; None of an empty state."""
        return BestLabels(**{**state, "labels": state["labels"].numpy()}) if state else None


def label_cameras(
    settings: Settings, features: FloatArray, camids: IntArray, device: torch.device, reporter: Reporter
) -> LocalLabels:
    """The labels of all cameras, each clustered by itself; arguments and errors as of `local_clusters`."""
    labels, silhouettes = np.zeros(len(camids), np.int64), []
    for camid in np.unique(camids):
        members = np.flatnonzero(camids == camid)
        labels[members], silhouette = local_clusters(settings, features[members], device, reporter)
        silhouettes.append(silhouette)
    return LocalLabels(unique_over_cameras(labels, camids), silhouettes)


def label_camera(
    settings: Settings, features: FloatArray, device: torch.device, reporter: Reporter
) -> LocalLabels:
    """The labels of the one camera that all images are of; see `local_clusters`."""
    labels, silhouette = local_clusters(settings, features, device, reporter)
    return LocalLabels(labels, [silhouette])


def local_counts(settings: Settings, num_images: int, reporter: Reporter) -> list[int]:
    """The numbers of clusters to choose from for a camera of ``num_images``; none if there are too few."""
    clustering = settings.intra.clustering
    if clustering.num_clusters is None and clustering.choice == "silhouette":
        return candidate_counts(num_images)
    counts = cluster_counts(num_images, clustering.num_clusters)
    if counts and counts[0] > num_images // 2:
        reporter.warning(
            f"{counts[0]} clusters for {num_images} images leave most of them alone: "
            "lower intra.clustering.num_clusters"
        )
    return counts


def local_clusters(
    settings: Settings, features: FloatArray, device: torch.device, reporter: Reporter
) -> tuple[IntArray, float]:
    """Labels of one camera's images and their silhouette; one cluster, and 0, if there are too few images.

    Args:
        settings: Those of stage 1 say how.
        features: (N_c, D) unit rows of the camera's images.
        device: Where neighbours are searched.
        reporter: Told what happens.

    Returns:
        (N_c,) labels 0..K_c-1; of several numbers of clusters those with the best silhouette.

    Raises:
        ConfigError: FAISS is asked for and is not installed.
        DataError: A feature that is not a finite number.
        MemoryLimitError: Something does not fit into the memory allowed.
    """
    counts = local_counts(settings, len(features), reporter)
    if not counts:
        return np.zeros(len(features), np.int64), 0.0
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
