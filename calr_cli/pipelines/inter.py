"""Stage 2: one network over all cameras, trained on global labels refined by local ones."""

from __future__ import annotations

import shutil
from time import perf_counter
from typing import Any

import numpy as np
import torch

from calr_cli.clustering.centroids import cluster_centroids
from calr_cli.clustering.refinement import cluster_weights
from calr_cli.config.schema import Settings
from calr_cli.data.samplers import cluster_batches
from calr_cli.distances.knn import choose_backend
from calr_cli.events import Reporter, SilentReporter
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
from calr_cli.pipelines.labels import check_clusters, label_counts, label_epoch, refinement_quality
from calr_cli.pipelines.run_dir import RunFolder
from calr_cli.training.checkpoint import load_state, save_model, save_state
from calr_cli.training.epoch import train_epoch
from calr_cli.training.optim import build_optimiser
from calr_cli.training.reproducibility import keyed_rng, seed_torch
from calr_cli.types import Dataset, FloatArray, IntArray


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
    reporter.note(f"neighbour search: {choose_backend(settings.search.backend, device)} on {device}")
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
            told = reporter if epoch == start else SilentReporter()  # what holds for every epoch, once
            labels = label_epoch(settings, features, images.camids, local_labels, epoch, device, told)
        check_clusters(labels, settings, reporter)
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
            **label_counts(labels),
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
            row["quality"] = refinement_quality(labels, images.pids)
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
