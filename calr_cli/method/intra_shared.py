"""Stage 1 with one network: local labels and the network that stage 2 can start from.

Source: the intra-camera loss of Wang et al., "Camera-Aware Proxies for Unsupervised Person
Re-Identification", AAAI 2021: a memory for each camera, whose clusters are told apart only from each other.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from calr_cli.clustering.quality import label_quality
from calr_cli.config.schema import Settings
from calr_cli.data.local_labels import write_local_labels
from calr_cli.data.samplers import cluster_batches
from calr_cli.distributed import collectives
from calr_cli.events import Reporter
from calr_cli.figures import CameraSummary, EpochFigures, IntraEpoch
from calr_cli.method.build import build_encoder, build_networks, model_card
from calr_cli.method.epochs import Epochs, TrainingImages
from calr_cli.method.local_clusters import LocalLabels, label_cameras
from calr_cli.runs.folder import RunFolder
from calr_cli.training.checkpoint import save_model
from calr_cli.training.objective import Objective
from calr_cli.types import ImageSet, IntArray


def train_shared(
    settings: Settings, data: TrainingImages, run: RunFolder, device: torch.device, reporter: Reporter
) -> tuple[IntArray, list[CameraSummary]]:
    """Cluster within each camera and train one network on all of them; write labels and model.

    As many batches are drawn as a network per camera would see together. The labels are of the trained
    network. All ranks train together; rank 0 alone makes labels and touches the run folder.

    Returns:
        (N,) labels, unique over cameras, and what each camera came to.

    Raises:
        As `calr_cli.method.intra.train_intra`.
    """
    images, camids = data.images, data.images.camids
    cameras = {int(camid): run.camera(int(camid)) for camid in np.unique(camids)}
    stage = settings.intra.model_copy(update={"iters": settings.intra.iters * len(cameras)})
    networks = build_networks(stage.optimiser, build_encoder(settings, "intra", device))
    epochs = Epochs(settings, stage, ("intra",), data, networks, run, reporter, cameras)
    if epochs.is_resumed:
        reporter.note(f"resuming {run.path} {epochs.state.position()} of {stage.epochs}")

    for epoch in epochs:  # resumes, saves, logs
        features = epoch.features()
        make = partial(label_cameras, settings, features, camids, device, epoch.once)
        found = epoch.labels(LocalLabels, "clustering", make)
        labels, summaries = found.labels, summarise_cameras(images, found)
        if epoch.is_over:
            break
        objective = Objective(epoch.terms(labels), labels, camids)
        batches = cluster_batches(
            labels,
            camids,
            batch_size=stage.batch_size,
            num_instances=stage.num_instances,
            iterations=stage.iters,
            rng=epoch.rng("batches"),
        )
        losses = epoch.train(objective, batches)
        figures = [
            IntraEpoch(
                camera=of.camera,
                epoch=epoch.number,
                images=of.images,
                clusters=of.clusters,
                batch=batches.shape[1],
                silhouette=silhouette,
                loss=losses.cluster,
                # What all cameras did together counts for each as its share.
                seconds=epoch.seconds.scaled(of.images / len(images)),
                quality=of.quality,
            )
            for of, silhouette in zip(summaries, found.silhouettes, strict=True)
        ]
        epoch.end(*figures)

    if collectives.is_main():
        run.keep_metrics(sorted(epochs.state.figures, key=by_camera))
        card = model_card(settings, networks.encoder, "intra", epochs.done, images)
        save_model(run.model, networks.encoder, card)
        write_local_labels(run.local_labels, images, labels)
        run.state.unlink(missing_ok=True)
    return labels, summaries


def by_camera(row: EpochFigures) -> tuple[int, int]:
    """Sorts the figures of stage 1 by camera, then by epoch."""
    assert isinstance(row, IntraEpoch)
    return row.camera, row.epoch


def summarise_cameras(images: ImageSet, found: LocalLabels) -> list[CameraSummary]:
    """The labels of each camera in figures."""
    summaries = []
    for camid, silhouette in zip(np.unique(images.camids), found.silhouettes, strict=True):
        members = np.flatnonzero(images.camids == camid)
        labels, pids = found.labels[members], images.pids[members]
        quality = label_quality(labels, pids) if images.has_identities else None
        clusters = len(np.unique(labels))
        summaries.append(
            CameraSummary(int(camid), len(members), clusters, silhouette=silhouette, quality=quality)
        )
    return summaries
