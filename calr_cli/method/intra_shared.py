"""Stage 1 with one network: local labels and the network that stage 2 can start from.

Source: the intra-camera loss of Wang et al., "Camera-Aware Proxies for Unsupervised Person
Re-Identification", AAAI 2021: a memory for each camera, whose clusters are told apart only from each other.
"""

from __future__ import annotations

from dataclasses import asdict
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calr_cli.clustering.centroids import cluster_centroids
from calr_cli.clustering.quality import label_quality
from calr_cli.config.schema import Settings
from calr_cli.data.loaders import PixelSource
from calr_cli.data.local_labels import unique_over_cameras, write_local_labels
from calr_cli.distributed import collectives
from calr_cli.events import Reporter, SilentReporter
from calr_cli.method.build import build_encoder, build_extractor, build_pixels, build_state, model_card
from calr_cli.method.camera_clusters import camera_clusters, cluster_counts
from calr_cli.method.learning import draw_batches, train_under_way
from calr_cli.runs.folder import RunFolder
from calr_cli.training.checkpoint import save_model
from calr_cli.training.state import EpochUnderWay, TrainingState
from calr_cli.types import Dataset, FloatArray, ImageSet, IntArray


def train_shared(
    settings: Settings, dataset: Dataset, run: RunFolder, device: torch.device, reporter: Reporter
) -> tuple[IntArray, list[dict[str, Any]]]:
    """Cluster within each camera and train one network on all of them; write labels and model.

    As many batches are drawn as a network per camera would see together. The labels are of the trained
    network. All ranks train together; rank 0 alone makes labels and touches the run folder.

    Returns:
        (N,) labels, unique over cameras, and their figures, one row per camera.

    Raises:
        As `calr_cli.method.intra.train_intra`.
    """
    images, intra = dataset.train, settings.intra
    cameras = np.unique(images.camids)
    pixels = build_pixels(settings, images, reporter)
    encoder = build_encoder(settings, "intra", device)
    state = build_state(intra.optimiser, encoder)
    if state.restore(run.state):
        reporter.note(f"resuming {run.path} {state.position()} of {intra.epochs}")
    folders = {int(camid): RunFolder(run.path / f"cam{camid}") for camid in cameras}
    if collectives.is_main():
        for camid, folder in folders.items():
            folder.path.mkdir(exist_ok=True)
            folder.keep_metrics([row for row in state.rows if row["camera"] == camid])
    start = state.epoch
    stage = intra.model_copy(update={"iters": intra.iters * len(cameras)})
    for epoch in range(start, max(start, intra.epochs) + 1):
        if state.under_way is None:
            told = reporter if epoch == start else SilentReporter()  # what holds for every epoch, once
            state.under_way = _begin_epoch(settings, state, pixels, images.camids, told, reporter)
        labels = state.under_way.labels["labels"].numpy()
        rows = _figures(images, labels, state.under_way.labels["scores"].tolist())
        if epoch >= intra.epochs:
            break
        batches = draw_batches(settings, stage, labels, images.camids, ("intra", epoch))
        groups = np.empty(len(state.under_way.centroids), np.int64)
        groups[labels] = images.camids
        began, seconds = perf_counter(), state.under_way.seconds
        losses = train_under_way(
            settings,
            stage,
            state,
            run.state,
            pixels,
            labels,
            images.camids,
            batches,
            ("intra", epoch),
            title=f"epoch {epoch + 1}/{intra.epochs}",
            reporter=reporter,
            groups=groups,
        )
        seconds = {**seconds, "train": perf_counter() - began}
        for row in rows:  # what all cameras did together counts for each as its share
            shares = {step: value * row["images"] / len(images) for step, value in seconds.items()}
            row |= {"epoch": epoch, "batch": batches.shape[1], "loss": losses.cluster, "seconds": shares}
        state.epoch, state.under_way = epoch + 1, None
        state.rows += rows
        state.save(run.state, settings.model_dump())
        for row in rows:
            if collectives.is_main():
                folders[row["camera"]].append_metrics(row)
            reporter.metric(row)
    if collectives.is_main():
        run.keep_metrics(sorted(state.rows, key=lambda row: (row["camera"], row["epoch"])))
        save_model(run.model, encoder, model_card(settings, "intra", state.epoch))
        write_local_labels(run.local_labels, images, labels)
        run.state.unlink(missing_ok=True)
    return labels, rows


def _begin_epoch(
    settings: Settings,
    state: TrainingState,
    pixels: PixelSource,
    camids: IntArray,
    told: Reporter,
    reporter: Reporter,
) -> EpochUnderWay:
    """Extract, cluster camera by camera; features are of all ranks, labels are made once and broadcast."""
    began = perf_counter()
    features: FloatArray = build_extractor(settings, reporter)(state.encoder, pixels)
    extracted = perf_counter()
    device = state.encoder.device

    def make() -> tuple[dict[str, Tensor], Tensor]:
        labels, scores = np.zeros(len(camids), np.int64), []
        with reporter.progress("clustering", 0):
            for camid in np.unique(camids):
                members = np.flatnonzero(camids == camid)
                counts = cluster_counts(settings, len(members), told)
                score = 0.0  # too few images: one cluster
                if counts:
                    labels[members], score = camera_clusters(
                        settings, features[members], counts, device, told
                    )
                scores.append(score)
        labels = unique_over_cameras(labels, camids)
        tensors = {"labels": torch.from_numpy(labels), "scores": torch.tensor(scores, dtype=torch.float64)}
        return tensors, torch.from_numpy(cluster_centroids(features, labels))

    tensors, centroids = collectives.made_by_main(make)
    seconds = {"extract": extracted - began, "cluster": perf_counter() - extracted}
    return EpochUnderWay(tensors, centroids, torch.zeros(0, 2), seconds)


def _figures(images: ImageSet, labels: IntArray, scores: list[float]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for camid, score in zip(np.unique(images.camids), scores, strict=True):
        members = np.flatnonzero(images.camids == camid)
        row: dict[str, Any] = {
            "camera": int(camid),
            "images": len(members),
            "clusters": len(np.unique(labels[members])),
            "silhouette": score,
        }
        if images.has_identities:
            row["quality"] = asdict(label_quality(labels[members], images.pids[members]))
        rows.append(row)
    return rows
