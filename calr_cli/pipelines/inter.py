"""Stage 2: one network over all cameras, trained on global labels refined by local ones."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch

from calr_cli.clustering.centroids import cluster_centroids
from calr_cli.clustering.infomap import infomap_labels
from calr_cli.clustering.pivots import neighbourhood_scores, select_pivots
from calr_cli.clustering.quality import label_quality
from calr_cli.clustering.refinement import (
    cluster_weights,
    cosine_probability,
    discards_by_schedule,
    refine_by_camera,
)
from calr_cli.config.schema import Settings
from calr_cli.data.samplers import cluster_batches
from calr_cli.distances.knn import knn
from calr_cli.errors import TrainingError
from calr_cli.events import Reporter
from calr_cli.files import atomic_write
from calr_cli.pipelines.build import (
    build_alignment,
    build_augmentation,
    build_encoder,
    build_extractor,
    build_memory,
    model_card,
    optimiser_options,
)
from calr_cli.pipelines.run_dir import RunFolder
from calr_cli.training.checkpoint import load_state, save_model, save_state
from calr_cli.training.epoch import train_epoch
from calr_cli.training.optim import build_optimiser
from calr_cli.training.reproducibility import keyed_rng, seed_torch
from calr_cli.types import OUTLIER, Dataset, FloatArray, IntArray


@dataclass(frozen=True)
class EpochLabels:
    """The labels of one epoch: (N,) global and refined ones, (K,) pivots."""

    global_labels: IntArray
    refined_labels: IntArray
    pivots: IntArray


def train_inter(
    settings: Settings,
    dataset: Dataset,
    local_labels: IntArray | None,
    run: RunFolder,
    device: torch.device,
    reporter: Reporter,
) -> dict[str, Any]:
    """Train the model; an interrupted run goes on after its last whole epoch.

    Args:
        settings: What the run is told.
        dataset: Its training split is used; identities only for the figures that are logged.
        local_labels: (N,) from stage 1, unique over cameras; None only without refinement.
        run: Folder of the run.
        device: Where the network works.
        reporter: Told what happens.

    Returns:
        Summary: the last epoch's figures and the model's path.

    Raises:
        TrainingError: Fewer than two clusters, or a loss that is not a number.
        DataError: An image that cannot be read.
        OSError: The run folder cannot be written.
    """
    inter, images = settings.inter, dataset.train
    extract, augmentation = build_extractor(settings, reporter), build_augmentation(settings)
    encoder = build_encoder(settings, "inter", device)
    alignment = build_alignment(settings, dataset.num_cameras, encoder, device)
    heads = [] if alignment is None else list(alignment.classifier.parameters())
    optimiser, schedule = build_optimiser(
        [*encoder.parameters(), *heads], **optimiser_options(inter.optimiser)
    )
    start = 0
    if run.state.exists():
        state = load_state(run.state)
        encoder.load_state_dict(state["encoder"])
        if alignment is not None:
            alignment.classifier.load_state_dict(state["classifier"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        start = state["epoch"]
        reporter.note(f"resuming {run.path} after epoch {start} of {inter.epochs}")
    run.keep_metrics([row for row in run.read_metrics() if row["epoch"] < start])

    for epoch in range(start, inter.epochs):
        began = perf_counter()
        features: FloatArray = extract(encoder, images)
        extracted = perf_counter()
        with reporter.progress("clustering and refinement", 0):
            labels = label_epoch(settings, features, images.camids, local_labels, epoch)
        _check_clusters(labels, reporter)
        memory = build_memory(inter.memory, cluster_centroids(features, labels.refined_labels), device)
        weighted = inter.weights.mode == "entropy" and epoch >= inter.weights.start_epoch
        weights = np.maximum(cluster_weights(labels.refined_labels, images.camids), inter.weights.floor)
        clustered = perf_counter()
        batches = cluster_batches(
            labels.refined_labels,
            images.camids,
            batch_size=inter.batch_size,
            num_instances=inter.num_instances,
            iterations=inter.iters,
            rng=keyed_rng(settings.seed, "inter", epoch, "batches"),
        )
        if batches.shape[1] < inter.batch_size:
            reporter.warning(
                f"epoch {epoch + 1}: the clusters give only {batches.shape[1]} images, fewer than "
                f"a batch of {inter.batch_size}: the batch shrinks for this epoch"
            )
        seed_torch(settings.seed, "inter", epoch, "dropout")
        losses = train_epoch(
            encoder,
            memory,
            optimiser,
            images,
            labels.refined_labels,
            batches,
            augmentation=augmentation,
            rng=keyed_rng(settings.seed, "inter", epoch, "augmentation"),
            height=settings.data.height,
            width=settings.data.width,
            workers=settings.data.workers,
            reporter=reporter,
            title=f"epoch {epoch + 1}/{inter.epochs}",
            update_mode=inter.memory.mode,
            class_weights=weights if weighted else None,
            alignment=alignment if epoch < inter.camera.adversarial_epochs else None,
        )
        schedule.step()
        row: dict[str, Any] = {
            "epoch": epoch,
            "images": len(images),
            **_counts(labels),
            "zero_weight_clusters": int((weights == 0).sum()) if weighted else None,
            "batch": batches.shape[1],
            "loss": losses.cluster,
            "camera_loss": losses.camera,
            "seconds": {
                "extract": extracted - began,
                "cluster": clustered - extracted,
                "train": perf_counter() - clustered,
            },
        }
        if images.has_identities:
            row["quality"] = _quality(labels, images.pids)
        save_model(run.last, encoder, model_card(settings, dataset, "inter", epoch + 1))
        save_state(
            run.state,
            {
                "epoch": epoch + 1,
                "encoder": encoder.state_dict(),
                "classifier": alignment.classifier.state_dict() if alignment is not None else {},
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
            },
        )
        run.append_metrics(row)
        reporter.metric(row)
    with atomic_write(run.model) as temporary:
        shutil.copyfile(run.last, temporary)
    return {
        "dataset": dataset.name,
        "epochs": inter.epochs,
        "model": str(run.model),
        **run.read_metrics()[-1],
    }


def label_epoch(
    settings: Settings, features: FloatArray, camids: IntArray, local_labels: IntArray | None, epoch: int
) -> EpochLabels:
    """Global clusters of the features, their pivots, and the clusters refined by local labels."""
    clustering, refinement = settings.inter.clustering, settings.inter.refinement
    neighbours = knn(features, clustering.k)
    global_labels = infomap_labels(neighbours, clustering.min_similarity, clustering.min_cluster_size)
    scores = neighbourhood_scores(neighbours, clustering.min_similarity)
    pivots = select_pivots(global_labels, scores, refinement.pivot)
    if not refinement.enabled:
        return EpochLabels(global_labels, global_labels, pivots)
    assert local_labels is not None
    refined_labels = refine_by_camera(global_labels, local_labels, camids, pivots)
    if refinement.schedule == "cosine":
        refined_labels = discards_by_schedule(
            global_labels,
            refined_labels,
            cosine_probability(epoch, settings.inter.epochs),
            keyed_rng(settings.seed, "inter", epoch, "discards"),
        )
    return EpochLabels(global_labels, refined_labels, pivots)


def _check_clusters(labels: EpochLabels, reporter: Reporter) -> None:
    sizes = np.bincount(labels.global_labels[labels.global_labels != OUTLIER])
    if not len(sizes):
        raise TrainingError(
            f"all {len(labels.global_labels)} images are outliers: there is no cluster to train on",
            "Lower inter.clustering.min_similarity or inter.clustering.min_cluster_size",
        )
    if len(sizes) == 1:
        raise TrainingError(
            f"one cluster holds all {sizes[0]} clustered images: there is nothing to tell apart",
            "Raise inter.clustering.min_similarity or lower inter.clustering.k",
        )
    if sizes.max() > len(labels.global_labels) / 2:
        reporter.warning(
            f"one cluster holds {sizes.max()} of {len(labels.global_labels)} images: "
            "raise inter.clustering.min_similarity or lower inter.clustering.k"
        )


def _counts(labels: EpochLabels) -> dict[str, int]:
    return {
        "clusters": len(labels.pivots),
        "outliers": int((labels.global_labels == OUTLIER).sum()),
        "discarded": int((labels.global_labels != labels.refined_labels).sum()),
        "without_pivot": int((labels.pivots < 0).sum()),
    }


def _quality(labels: EpochLabels, pids: IntArray) -> dict[str, Any]:
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
