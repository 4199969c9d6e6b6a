"""Stage 1: local labels, one network and one clustering per camera."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from time import perf_counter
from typing import Any

import numpy as np
import torch

from calr_cli.clustering.centroids import cluster_centroids
from calr_cli.clustering.quality import label_quality
from calr_cli.config.schema import Settings
from calr_cli.data.loaders import PixelSource
from calr_cli.data.local_labels import read_local_labels, unique_over_cameras, write_local_labels
from calr_cli.distances.knn import choose_backend
from calr_cli.distributed import collectives
from calr_cli.events import Reporter, SilentReporter
from calr_cli.method.build import (
    build_encoder,
    build_extractor,
    build_pixels,
    build_state,
    model_card,
)
from calr_cli.method.camera_clusters import camera_clusters, cluster_counts
from calr_cli.method.intra_shared import train_shared
from calr_cli.method.learning import draw_batches, train_under_way
from calr_cli.prepare.datasets.own import ONE_CAMERA
from calr_cli.runs.folder import RunFolder
from calr_cli.training.checkpoint import save_model
from calr_cli.training.state import EpochUnderWay, TrainingState
from calr_cli.types import Dataset, FloatArray, ImageSet, IntArray


def train_intra(
    settings: Settings, dataset: Dataset, run: RunFolder, device: torch.device, reporter: Reporter
) -> dict[str, Any]:
    """Cluster and train within each camera; write one local label per training image.

    An interrupted run goes on: finished cameras are kept, those at work continue from where they were
    saved last. Several ranks take whole cameras, the largest first; what a camera gives does not depend on
    who works on it.

    Returns:
        Summary: clusters per camera and, where identities are known, their quality, per camera and overall.

    Raises:
        ConfigError: The device cannot compute in what is asked for.
        TrainingError: The loss is not a number.
        DataError: An image that cannot be read.
        MemoryLimitError: A step does not fit into the memory there is.
        OSError: The run folder cannot be written.
    """
    reporter.note(f"neighbour search: {choose_backend(settings.search.backend, device)} on {device}")
    if len(np.unique(dataset.train.camids)) == 1:
        reporter.warning(f"all training images are of one camera: {ONE_CAMERA}")
    shared = settings.intra.network == "shared"
    train = train_shared if shared else train_cameras
    labels, per_camera = train(settings, dataset, run, device, reporter)
    summary: dict[str, Any] = {
        "dataset": dataset.name,
        "images": len(labels),
        "cameras": len(per_camera),
        "clusters": len(np.unique(labels)),
        "local_labels": str(run.local_labels),
        "per_camera": per_camera,
    }
    if dataset.train.has_identities:
        quality = label_quality(labels, dataset.train.pids, dataset.train.camids)
        summary["quality"] = asdict(quality)
    return summary


def train_cameras(
    settings: Settings, dataset: Dataset, run: RunFolder, device: torch.device, reporter: Reporter
) -> tuple[IntArray, list[dict[str, Any]]]:
    """Cluster and train within each camera with a network of its own; write the labels.

    Returns:
        (N,) labels, unique over cameras, and their figures, one row per camera.

    Raises:
        As `train_intra`.
    """
    pixels = build_pixels(settings, dataset.train, reporter)
    members = {int(c): np.flatnonzero(dataset.train.camids == c) for c in np.unique(dataset.train.camids)}
    trained = 3 * settings.intra.iters * settings.intra.batch_size  # a step costs about three extractions
    work = schedule_cameras({c: len(rows) + trained for c, rows in members.items()}, collectives.world_size())
    mine = work[collectives.rank()]
    found: dict[int, tuple[IntArray, list[dict[str, Any]]]] = {}
    for number, camid in enumerate(mine, start=1):
        images = dataset.train.subset(members[camid])
        folder = RunFolder(run.path / f"cam{camid}")
        if not folder.local_labels.exists():
            reporter.stage(f"camera {camid} ({number} of {len(mine)}): {len(images)} images")
            with collectives.alone():
                part = pixels.subset(members[camid])
                labels = _train_camera(settings, images, part, folder, device, reporter)
            write_local_labels(folder.local_labels, images, labels)
        folder.state.unlink(missing_ok=True)
        found[camid] = read_local_labels(folder.local_labels, images), folder.read_metrics()
    everyones = {camid: part for of_rank in collectives.gather(found) for camid, part in of_rank.items()}
    labels = np.empty(len(dataset.train), np.int64)
    for camid, rows in members.items():
        labels[rows] = everyones[camid][0]
    if collectives.is_main():
        run.keep_metrics([row for camid in members for row in everyones[camid][1]])
        write_local_labels(run.local_labels, dataset.train, labels)
    figures = [_best_of(camid, len(rows), everyones[camid][1]) for camid, rows in members.items()]
    return unique_over_cameras(labels, dataset.train.camids), figures


def _best_of(camid: int, num_images: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the epoch whose labels a camera kept; a camera too small to train has none."""
    best = max(rows, key=lambda row: (row["silhouette"], row["epoch"]), default={"clusters": 1})
    kept = {name: best[name] for name in ("epoch", "clusters", "silhouette", "quality") if name in best}
    return {"camera": camid, "images": num_images, **kept}


def schedule_cameras(costs: Mapping[int, float], ranks: int) -> list[list[int]]:
    """Which rank works on which cameras: the costliest first, each to the rank with the least to do.

    >>> schedule_cameras({0: 5, 1: 9, 2: 4, 3: 3}, 2)
    [[1, 3], [0, 2]]
    """
    work: list[list[int]] = [[] for _ in range(ranks)]
    for camid in sorted(costs, key=lambda c: (-costs[c], c)):
        min(work, key=lambda cameras: sum(costs[c] for c in cameras)).append(camid)
    return work


def _train_camera(
    settings: Settings,
    images: ImageSet,
    pixels: PixelSource,
    folder: RunFolder,
    device: torch.device,
    reporter: Reporter,
) -> IntArray:
    """The camera's labels with the best silhouette over the epochs."""
    intra, camid = settings.intra, int(images.camids[0])
    counts = cluster_counts(settings, len(images), reporter)
    if not counts:
        reporter.note(f"too few images to train on: camera {camid} becomes one local cluster")
        return np.zeros(len(images), np.int64)
    encoder = build_encoder(settings, "intra", device)
    state = build_state(intra.optimiser, encoder)
    if state.restore(folder.state):
        reporter.note(f"resuming camera {camid} {state.position()} of {intra.epochs}")
    folder.keep_metrics(state.rows)
    start = state.epoch
    for epoch in range(start, intra.epochs):
        if state.under_way is None:
            told = reporter if epoch == start else SilentReporter()  # what holds for every epoch, once
            begun, score = _begin_epoch(settings, state, pixels, counts, told, reporter)
            if score >= state.best.get("score", -np.inf):  # of equals the later: it has seen more training
                state.best = {"epoch": epoch, "score": score, "labels": begun.labels["labels"]}
                save_model(folder.model, encoder, model_card(settings, "intra", epoch))
            state.under_way = begun
        labels = state.under_way.labels["labels"].numpy()
        key = ("intra", camid, epoch)
        batches = draw_batches(settings, intra, labels, images.camids, key)
        began, seconds = perf_counter(), state.under_way.seconds
        losses = train_under_way(
            settings,
            intra,
            state,
            folder.state,
            pixels,
            labels,
            images.camids,
            batches,
            key,
            title=f"camera {camid} epoch {epoch + 1}/{intra.epochs}",
            reporter=reporter,
        )
        row: dict[str, Any] = {
            "camera": camid,
            "epoch": epoch,
            "images": len(images),
            "clusters": int(labels.max()) + 1,
            "batch": batches.shape[1],
            "silhouette": float(state.under_way.labels["score"]),
            "loss": losses.cluster,
            "seconds": {**seconds, "train": perf_counter() - began},
        }
        if images.has_identities:
            row["quality"] = asdict(label_quality(labels, images.pids))
        state.epoch, state.under_way = epoch + 1, None
        state.rows.append(row)
        state.save(folder.state, settings.model_dump())
        folder.append_metrics(row)
        reporter.metric(row)
    best: IntArray = state.best["labels"].numpy()
    return best


def _begin_epoch(
    settings: Settings,
    state: TrainingState,
    pixels: PixelSource,
    counts: list[int],
    told: Reporter,
    reporter: Reporter,
) -> tuple[EpochUnderWay, float]:
    """The camera's clusters as the network sees them now, and their silhouette."""
    began = perf_counter()
    features: FloatArray = build_extractor(settings, reporter)(state.encoder, pixels)
    extracted = perf_counter()
    with reporter.progress("clustering", 0):
        device = state.encoder.device
        labels, score = camera_clusters(settings, features, counts, device, told)
    seconds = {"extract": extracted - began, "cluster": perf_counter() - extracted}
    tensors = {"labels": torch.from_numpy(labels), "score": torch.tensor(score, dtype=torch.float64)}
    centroids = torch.from_numpy(cluster_centroids(features, labels))
    return EpochUnderWay(tensors, centroids, torch.zeros(0, 2), seconds), score
