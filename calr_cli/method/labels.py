"""The labels of an epoch of stage 2: kept for resuming, checked, counted, measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from calr_cli.clustering.quality import label_quality
from calr_cli.errors import TrainingError
from calr_cli.events import Reporter
from calr_cli.figures import BeforeAndAfter, RefinementQuality
from calr_cli.method.clusters import GlobalClustering
from calr_cli.types import OUTLIER, IntArray


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

    @property
    def to_train_on(self) -> IntArray:
        """(N,) the refined labels."""
        return self.refined_labels

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> EpochLabels:
        """What `to_tensors` gave."""
        arrays = {name: tensor.numpy() for name, tensor in tensors.items() if name != "criterion"}
        return EpochLabels(**arrays, criterion=float(tensors["criterion"]))


def check_clusters(labels: EpochLabels, clustering: GlobalClustering, reporter: Reporter) -> None:
    """Warn of one cluster that holds most images.

    Raises:
        TrainingError: Fewer than two clusters.
    """
    sizes = np.bincount(labels.global_labels[labels.global_labels != OUTLIER])
    if not len(sizes):
        raise TrainingError(
            f"all {len(labels.global_labels)} images are outliers: there is no cluster to train on",
            clustering.more_links.capitalize(),
        )
    if len(sizes) == 1:
        raise TrainingError(
            f"one cluster holds all {sizes[0]} clustered images: there is nothing to tell apart",
            clustering.fewer_links.capitalize(),
        )
    if sizes.max() > len(labels.global_labels) / 2:
        reporter.warning(
            f"one cluster holds {sizes.max()} of {len(labels.global_labels)} images: {clustering.fewer_links}"
        )


def label_counts(labels: EpochLabels) -> dict[str, int]:
    """Clusters, outliers, discarded images and clusters without a pivot."""
    return {
        "clusters": len(labels.pivots),
        "outliers": int((labels.global_labels == OUTLIER).sum()),
        "discarded": int((labels.global_labels != labels.refined_labels).sum()),
        "without_pivot": int((labels.pivots < 0).sum()),
    }


def refinement_quality(labels: EpochLabels, pids: IntArray) -> RefinementQuality:
    """Label quality before and after refinement, on the same images.

    ``clustered``: all images in global clusters, discarded ones counting as singletons after;
    ``kept``: only the images that refinement leaves. ``discarded_right`` is the share of discarded
    images whose identity is not their pivot's.
    """
    clustered = labels.global_labels != OUTLIER
    kept = labels.refined_labels != OUTLIER
    discarded = clustered & ~kept
    wrong = pids[discarded] != pids[labels.pivots[labels.global_labels[discarded]]]
    on_clustered, on_kept = (
        BeforeAndAfter(
            before=label_quality(labels.global_labels[on], pids[on]),
            after=label_quality(labels.refined_labels[on], pids[on]),
        )
        for on in (clustered, kept)
    )
    return RefinementQuality(on_clustered, on_kept, float(wrong.mean()) if len(wrong) else None)
