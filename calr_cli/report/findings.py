"""What the model and the images of a run show, or why a part is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from calr_cli.data.local_labels import read_local_labels
from calr_cli.errors import DataError
from calr_cli.evaluation.calibration import Calibration
from calr_cli.evaluation.camera_bias import CameraBias
from calr_cli.events import Reporter
from calr_cli.figures import RefinementQuality
from calr_cli.method.build import build_extractor, build_pixels, ready
from calr_cli.method.evaluate import require_test_set, warn_if_trained_on_others
from calr_cli.method.inter import label_epoch
from calr_cli.method.labels import EpochLabels, label_counts, refinement_quality
from calr_cli.models.encoder import Encoder
from calr_cli.prepare.prepared import load_dataset
from calr_cli.report.missing import Missing, or_missing
from calr_cli.report.projection import FeatureMap, feature_map
from calr_cli.report.record import RunRecord
from calr_cli.report.retrieval import Retrieval, look_at_retrieval
from calr_cli.training.checkpoint import ModelCard, load_model
from calr_cli.training.reproducibility import keyed_rng
from calr_cli.types import Dataset, FloatArray, ImageSet
from calr_cli.use.camera_following import camera_following
from calr_cli.use.embedding import calibration_of

NETWORKS_OF_STAGE_1 = {
    "per-camera": "Stage 1 trains a network for each camera; none of them has seen the other cameras.",
    "shared": "Stage 1 trains one network for all cameras, from which stage 2 starts. "
    "Look at the run of stage 2 for what such a network finds.",
}
"""Setting ``intra.network`` -> why the report of stage 1 shows no retrieval and no map."""


@dataclass(frozen=True)
class Labels:
    """The labels of the training images as the model makes them now.

    Attributes:
        epoch: Labels of this epoch.
        counts: Numbers of clusters, outliers, discarded images, and clusters without a pivot.
        quality: Quality against identities, before and after refinement; None if identities are not known.
        bias: How far neighbours and global clusters follow cameras; None if there is one camera.
    """

    epoch: EpochLabels
    counts: dict[str, int]
    quality: RefinementQuality | None
    bias: CameraBias | None = None


@dataclass(frozen=True)
class Findings:
    """What the report shows of one run: each part, or the reason why it is missing.

    Attributes:
        dataset: Images of the run.
        model: Name of the model in use, in words.
        retrieval: Retrieval on query and gallery.
        labels: Labels of the training images.
        map: Map of the training images' features.
        calibration: Calibration of the model; None before `calr evaluate --calibrate`.
    """

    dataset: Dataset | Missing
    model: str | Missing
    retrieval: Retrieval | Missing
    labels: Labels | Missing
    map: FeatureMap | Missing
    calibration: Calibration | None = None


def examine(
    run: RunRecord, device: torch.device, root: Path | None, map_points: int, reporter: Reporter
) -> Findings:
    """Load the run's model and images and compute every part; a missing part gives its reason.

    Args:
        run: Record of the run folder.
        device: Device of the network.
        root: Data root to use instead of the remembered one.
        map_points: Largest number of images on the map.
        reporter: Receiver of progress and warnings.
    """
    dataset = or_missing(lambda: load_dataset(run.settings.data.dataset, root, reporter), reporter)
    if run.stage == "intra":
        none = Missing(NETWORKS_OF_STAGE_1[run.settings.intra.network])
        return Findings(dataset, none, none, none, none)
    path = run.model
    if path is None:
        none = Missing("There is no model yet: no epoch has ended.")
        return Findings(dataset, none, none, none, none)
    if isinstance(dataset, Missing):
        return Findings(dataset, path.name, dataset, dataset, dataset)
    images = dataset
    loaded = or_missing(lambda: _load(run, path, device), reporter)
    if isinstance(loaded, Missing):
        return Findings(dataset, loaded, loaded, loaded, loaded)
    encoder, card = loaded
    warn_if_trained_on_others(path, card, images, reporter)
    model = f"{path.name}, after {card.epoch} epochs"
    retrieval = or_missing(lambda: _retrieval(run, encoder, images, device, reporter))
    features = or_missing(lambda: _extract(run, encoder, images.train, "training images", reporter), reporter)
    if isinstance(features, Missing):
        return Findings(dataset, model, retrieval, features, features)
    rows = features
    labels = or_missing(lambda: _labels(run, rows, images.train, card.epoch, device, reporter), reporter)
    rng = keyed_rng(run.settings.seed, "report", "map")
    with reporter.progress("map", 0):
        drawn = or_missing(lambda: feature_map(rows, map_points, rng), reporter)
    calibration = or_missing(lambda: calibration_of(card, path), reporter)
    known = None if isinstance(calibration, Missing) else calibration
    return Findings(dataset, model, retrieval, labels, drawn, known)


def _load(run: RunRecord, path: Path, device: torch.device) -> tuple[Encoder, ModelCard]:
    network, card = load_model(path)
    return ready(run.settings, network, device), card


def _extract(
    run: RunRecord, encoder: Encoder, images: ImageSet, title: str, reporter: Reporter
) -> FloatArray:
    pixels = build_pixels(run.settings, images, reporter)
    features: FloatArray = build_extractor(run.settings, reporter)(encoder, pixels, title=title)
    if not np.isfinite(features).all():
        raise DataError("The model's features are not all finite numbers")
    return features


def _retrieval(
    run: RunRecord, encoder: Encoder, dataset: Dataset, device: torch.device, reporter: Reporter
) -> Retrieval:
    require_test_set(dataset)
    q_features = _extract(run, encoder, dataset.query, "query", reporter)
    g_features = _extract(run, encoder, dataset.gallery, "gallery", reporter)
    with reporter.progress("ranking", 0):
        return look_at_retrieval(q_features, g_features, dataset, device)


def _labels(
    run: RunRecord,
    features: FloatArray,
    images: ImageSet,
    epoch: int,
    device: torch.device,
    reporter: Reporter,
) -> Labels:
    """Labels that the model makes again, because a run does not store the labels of its epochs."""
    local_labels = None
    if run.settings.inter.refinement.enabled:
        local_labels = read_local_labels(run.folder.local_labels, images)
    with reporter.progress("clustering and refinement", 0):
        labels = label_epoch(run.settings, features, images.camids, local_labels, epoch, device, reporter)
    quality = (
        refinement_quality(labels, images.pids) if images.has_identities and len(labels.pivots) else None
    )
    bias = camera_following(run.settings, features, images.camids, device, labels.global_labels)
    return Labels(labels, label_counts(labels), quality, bias)
