"""Stage 1: local labels, one network and one clustering per camera."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch

from calr_cli.clustering.quality import label_quality
from calr_cli.config.schema import Settings
from calr_cli.data.local_labels import read_local_labels, unique_over_cameras, write_local_labels
from calr_cli.data.samplers import cluster_batches
from calr_cli.distances.knn import choose_backend
from calr_cli.distributed import collectives
from calr_cli.events import Reporter, SilentReporter
from calr_cli.figures import CameraSummary, EpochFigures, IntraEpoch, to_json
from calr_cli.method.build import build_encoder, build_networks, build_pixels, model_card
from calr_cli.method.epochs import Epochs, TrainingImages
from calr_cli.method.intra_shared import train_shared
from calr_cli.method.local_clusters import BestLabels, LocalLabels, label_camera, local_counts
from calr_cli.prepare.datasets.own import ONE_CAMERA
from calr_cli.runs.folder import RunFolder
from calr_cli.training.checkpoint import save_model
from calr_cli.training.objective import Objective
from calr_cli.types import Dataset, IntArray


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
    images = dataset.train
    if len(np.unique(images.camids)) == 1:
        reporter.warning(f"all training images are of one camera: {ONE_CAMERA}")
    data = TrainingImages(images, build_pixels(settings, images, reporter))
    train = train_shared if settings.intra.network == "shared" else train_cameras
    labels, cameras = train(settings, data, run, device, reporter)
    quality = asdict(label_quality(labels, images.pids, images.camids)) if images.has_identities else None
    return {
        "dataset": dataset.name,
        "images": len(labels),
        "cameras": len(cameras),
        "clusters": len(np.unique(labels)),
        "local_labels": str(run.local_labels),
        "per_camera": [to_json(camera) for camera in cameras],
        **({} if quality is None else {"quality": quality}),
    }


def train_cameras(
    settings: Settings, data: TrainingImages, run: RunFolder, device: torch.device, reporter: Reporter
) -> tuple[IntArray, list[CameraSummary]]:
    """Cluster and train within each camera with a network of its own; write the labels.

    Returns:
        (N,) labels, unique over cameras, and what each camera came to.

    Raises:
        As `train_intra`.
    """
    camids = data.images.camids
    members = {int(c): np.flatnonzero(camids == c) for c in np.unique(camids)}
    trained = 3 * settings.intra.iters * settings.intra.batch_size  # a step costs about three extractions
    work = schedule_cameras({c: len(rows) + trained for c, rows in members.items()}, collectives.world_size())
    mine = work[collectives.rank()]
    left = [camid for camid in mine if not run.camera(camid).local_labels.exists()]
    found: dict[int, tuple[IntArray, list[EpochFigures]]] = {}
    for number, camid in enumerate(mine, start=1):
        part, folder = data.subset(members[camid]), run.camera(camid)
        if camid in left:
            reporter.stage(f"camera {camid} ({number} of {len(mine)}): {len(part.images)} images")
            with collectives.alone():
                alike = len(left) if camid == left[0] else 0  # the first one speaks for all
                labels = train_camera(settings, part, folder, device, reporter, alike)
            write_local_labels(folder.local_labels, part.images, labels)
        folder.state.unlink(missing_ok=True)
        found[camid] = read_local_labels(folder.local_labels, part.images), folder.read_epochs()
    everyones = {camid: result for of_rank in collectives.gather(found) for camid, result in of_rank.items()}
    labels = np.empty(len(camids), np.int64)
    for camid, rows in members.items():
        labels[rows] = everyones[camid][0]
    if collectives.is_main():
        run.keep_metrics([row for camid in members for row in everyones[camid][1]])
        write_local_labels(run.local_labels, data.images, labels)
    figures = [_best_of(camid, len(rows), everyones[camid][1]) for camid, rows in members.items()]
    return unique_over_cameras(labels, camids), figures


def _best_of(camid: int, num_images: int, rows: list[EpochFigures]) -> CameraSummary:
    """The figures of the epoch whose labels a camera kept; a camera too small to train has none."""
    epochs = [row for row in rows if isinstance(row, IntraEpoch)]
    best = max(epochs, key=lambda row: (row.silhouette, row.epoch), default=None)
    if best is None:
        return CameraSummary(camid, num_images, clusters=1)
    return CameraSummary(camid, num_images, best.clusters, best.epoch, best.silhouette, best.quality)


def schedule_cameras(costs: Mapping[int, float], ranks: int) -> list[list[int]]:
    """Which rank works on which cameras: the costliest first, each to the rank with the least to do.

    >>> schedule_cameras({0: 5, 1: 9, 2: 4, 3: 3}, 2)
    [[1, 3], [0, 2]]
    """
    work: list[list[int]] = [[] for _ in range(ranks)]
    for camid in sorted(costs, key=lambda c: (-costs[c], c)):
        min(work, key=lambda cameras: sum(costs[c] for c in cameras)).append(camid)
    return work


def train_camera(
    settings: Settings,
    data: TrainingImages,
    folder: RunFolder,
    device: torch.device,
    reporter: Reporter,
    alike: int = 1,
) -> IntArray:
    """The labels of one camera: those with the best silhouette over the epochs.

    Args:
        settings: Settings of the run.
        data: The camera's images.
        folder: Of the camera.
        device: Where the network works.
        reporter: Told what happens.
        alike: See `Epochs`.

    Returns:
        (N_c,) labels 0..K_c-1.

    Raises:
        As `train_intra`.
    """
    intra, images = settings.intra, data.images
    camid = int(images.camids[0])
    if not local_counts(settings, len(images), SilentReporter()):
        reporter.note(f"too few images to train on: camera {camid} becomes one local cluster")
        return np.zeros(len(images), np.int64)
    encoder = build_encoder(settings, "intra", device)
    networks = build_networks(intra.optimiser, encoder)
    epochs = Epochs(settings, intra, ("intra", camid), data, networks, folder, reporter, alike=alike)
    if epochs.is_resumed:
        reporter.note(f"resuming camera {camid} {epochs.state.position()} of {intra.epochs}")

    for epoch in epochs:  # resumes, saves, logs
        if epoch.is_over:
            break
        features = epoch.features()
        make = partial(label_camera, settings, features, device, epoch.once)
        found = epoch.labels(LocalLabels, "clustering", make)
        labels, silhouette = found.labels, found.silhouettes[0]
        best = BestLabels.remembered(epochs.state.best)
        # Of equals the later: it has seen more training. One that goes on has been looked at.
        if best is None or (silhouette >= best.silhouette and epoch.number != best.epoch):
            epochs.state.best = BestLabels(epoch.number, silhouette, labels).to_state()
            save_model(folder.model, encoder, model_card(settings, encoder, "intra", epoch.number, images))
        objective = Objective(epoch.terms(labels), labels, images.camids)
        batches = cluster_batches(
            labels,
            images.camids,
            batch_size=intra.batch_size,
            num_instances=intra.num_instances,
            iterations=intra.iters,
            rng=epoch.rng("batches"),
        )
        losses = epoch.train(objective, batches, f"camera {camid} ")
        figures = IntraEpoch(
            camera=camid,
            epoch=epoch.number,
            images=len(images),
            clusters=int(labels.max()) + 1,
            batch=batches.shape[1],
            silhouette=silhouette,
            loss=losses.cluster,
            seconds=epoch.seconds,
            quality=label_quality(labels, images.pids) if images.has_identities else None,
        )
        epoch.end(figures)
    best = BestLabels.remembered(epochs.state.best)
    assert best is not None
    return best.labels
