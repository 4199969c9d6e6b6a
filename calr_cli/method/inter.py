"""Stage 2: one network over all cameras, trained on global labels refined by local ones."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch

from calr_cli.clustering.criterion import label_criterion
from calr_cli.clustering.pivots import neighbourhood_scores, select_pivots
from calr_cli.clustering.refinement import cosine_probability, discards_by_schedule, refine_by_camera
from calr_cli.clustering.weights import cluster_weights
from calr_cli.config.schema import Settings
from calr_cli.data.samplers import cluster_batches
from calr_cli.distances.camera_shift import standardise_by_camera
from calr_cli.distances.knn import choose_backend
from calr_cli.distributed import collectives
from calr_cli.events import Reporter
from calr_cli.figures import Choice, InterEpoch, to_json
from calr_cli.method.build import (
    build_alignment,
    build_encoder,
    build_networks,
    build_pixels,
    search_neighbours,
)
from calr_cli.method.clusters import build_clustering
from calr_cli.method.epochs import Epochs, TrainingImages
from calr_cli.method.features_shown import show_features
from calr_cli.method.labels import EpochLabels, check_clusters, label_counts, refinement_quality
from calr_cli.method.monitoring import Monitor
from calr_cli.method.selection import ModelSelection
from calr_cli.runs.folder import RunFolder
from calr_cli.training.checkpoint import load_model
from calr_cli.training.networks import Networks
from calr_cli.training.objective import CameraAlignment, Objective
from calr_cli.training.reproducibility import keyed_rng
from calr_cli.types import Dataset, FloatArray, IntArray, Neighbours


def train_inter(
    settings: Settings,
    dataset: Dataset,
    local_labels: IntArray | None,
    run: RunFolder,
    device: torch.device,
    reporter: Reporter,
) -> dict[str, Any]:
    """Train the model; an interrupted run goes on from where it was saved last.

    With several ranks each is given the same but its own device; rank 0 alone makes labels and touches the
    run folder.

    Args:
        settings: Settings of the run.
        dataset: Its training split is used; identities, query and gallery only for figures that are logged,
            and for the oracle if that is asked for.
        local_labels: (N,) from stage 1, unique over cameras; None only without refinement.
        run: Folder of the run.
        device: Where the network works.
        reporter: Told what happens.

    Returns:
        Summary: the last epoch's figures, the model's path and the epoch it is of.

    Raises:
        ConfigError: The device cannot compute in what is asked for.
        TrainingError: Fewer than two clusters, or a loss that is not a number.
        DataError: An image that cannot be read.
        MemoryLimitError: A step does not fit into the memory there is.
        OSError: The run folder cannot be written.
    """
    inter, images, camids = settings.inter, dataset.train, dataset.train.camids
    networks, alignment = inter_networks(settings, dataset.num_cameras, device)
    monitor = Monitor(settings, dataset, reporter)
    reporter.note(f"neighbour search: {choose_backend(settings.search.backend, device)} on {device}")
    data = TrainingImages(images, build_pixels(settings, images, reporter))
    epochs = Epochs(settings, inter, ("inter",), data, networks, run, reporter)
    if epochs.is_resumed:
        reporter.note(f"resuming {run.path} {epochs.state.position()} of {inter.epochs}")
    elif inter.start == "intra":
        start = collectives.made_by_main(lambda: load_model(run.start)[0].state_dict())
        networks.encoder.load_state_dict(start)
    clustering = build_clustering(settings, reporter)
    selection = ModelSelection(settings, epochs, run, monitor)
    labels = None

    for epoch in epochs:  # resumes, saves, logs
        if epoch.is_over and inter.selection.model == "last":
            break
        features = epoch.features()
        make = partial(
            label_epoch, settings, features, camids, local_labels, epoch.number, device, epoch.once
        )
        labels = epoch.labels(EpochLabels, "clustering and refinement", make)
        selection.judge(labels.criterion)
        if epoch.is_over or selection.patience_is_over:
            break
        check_clusters(labels, clustering, reporter)
        refined = labels.refined_labels
        weights = class_weights(settings, refined, camids, epoch.number)
        aligned = alignment if epoch.number < inter.camera.adversarial_epochs else None
        objective = Objective(epoch.terms(refined), refined, camids, weights, aligned)
        batches = cluster_batches(
            refined,
            camids,
            batch_size=inter.batch_size,
            num_instances=inter.num_instances,
            iterations=inter.iters,
            rng=epoch.rng("batches"),
        )
        warn_of_small_batches(batches, inter.batch_size, epoch.number, reporter)
        losses = epoch.train(objective, batches)
        looked = selection.keep(epoch.number + 1)
        figures = InterEpoch(
            epoch=epoch.number,
            images=len(images),
            **label_counts(labels),
            zero_weight_clusters=None if weights is None else int((weights == 0).sum()),
            batch=batches.shape[1],
            loss=losses.cluster,
            camera_loss=losses.camera,
            criterion=labels.criterion,
            seconds=epoch.seconds,
            quality=refinement_quality(labels, images.pids) if images.has_identities else None,
            monitoring=looked,
        )
        epoch.end(figures)

    if collectives.broadcast(run.tensorboard.is_dir()):
        show_features(settings, networks.encoder, data, labels, run, reporter)
    return summary(settings, dataset.name, run, epochs, selection.finish(reporter), selection.choice)


def inter_networks(
    settings: Settings, num_cameras: int, device: torch.device
) -> tuple[Networks, CameraAlignment | None]:
    """Encoder, optimiser and average, with pretrained weights; and the camera classifier with its loss."""
    encoder = build_encoder(settings, "inter", device)
    alignment = build_alignment(settings, num_cameras, encoder, device)
    inter = settings.inter
    return build_networks(inter.optimiser, encoder, alignment, inter.average), alignment


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

    Args:
        settings: Those of stage 2 say how.
        features: (N, D) unit rows.
        camids: (N,).
        local_labels: (N,), unique over cameras; None only without refinement.
        epoch: From 0.
        device: Where neighbours are searched.
        reporter: Told what happens.

    Raises:
        ConfigError: FAISS or Infomap is asked for and is not installed.
        DataError: A feature that is not a finite number.
        MemoryLimitError: Something does not fit into the memory allowed.
    """
    refinement = settings.inter.refinement
    clusters, near, min_similarity = global_clusters(settings, features, camids, device, reporter)
    scores = neighbourhood_scores(near, min_similarity)
    pivots = select_pivots(clusters, scores, refinement.pivot)
    refined = clusters  # those that are discarded become outliers, for this epoch
    if refinement.enabled:
        assert local_labels is not None
        refined = refine_by_camera(clusters, local_labels, camids, pivots)
    if refinement.enabled and refinement.schedule == "cosine":
        probability = cosine_probability(epoch, settings.inter.epochs)
        rng = keyed_rng(settings.seed, "inter", epoch, "discards")
        refined = discards_by_schedule(clusters, refined, probability, rng)
    return EpochLabels(clusters, refined, pivots, label_criterion(near, clusters, camids))


def global_clusters(
    settings: Settings, features: FloatArray, camids: IntArray, device: torch.device, reporter: Reporter
) -> tuple[IntArray, Neighbours, float]:
    """Clusters over all cameras: of the nearest neighbours by Infomap, as published, or as the settings say.

    Args:
        settings: Those of stage 2 say how.
        features: (N, D) unit rows.
        camids: (N,).
        device: Where neighbours are searched.
        reporter: Told what happens.

    Returns:
        (N,) labels, 0..K-1 or ``OUTLIER``; the ``inter.clustering.k`` nearest images of each, of features
        standardised by camera if the settings say so; and the smallest similarity of a link between them.

    Raises:
        As `label_epoch`.
    """
    clustering = build_clustering(settings, reporter)
    if settings.inter.clustering.standardise:
        features = standardise_by_camera(features, camids)
    near = search_neighbours(settings, features, clustering.num_neighbours, device, reporter)  # knn
    clusters = clustering.cluster(features, camids, near)  # infomap_labels, as published
    return clusters, near.nearest(settings.inter.clustering.k), clustering.min_similarity


def class_weights(
    settings: Settings, refined_labels: IntArray, camids: IntArray, epoch: int
) -> FloatArray | None:
    """(K,) weights of the clusters in the loss of ``epoch``; None where all count alike."""
    options = settings.inter.weights
    if options.mode == "off" or epoch < options.start_epoch:
        return None
    weights: FloatArray = np.maximum(cluster_weights(refined_labels, camids), options.floor)
    return weights


def warn_of_small_batches(batches: IntArray, batch_size: int, epoch: int, reporter: Reporter) -> None:
    """Warn if the clusters of ``epoch`` hold too few images for a batch of ``batch_size``."""
    if batches.shape[1] < batch_size:
        reporter.warning(
            f"epoch {epoch + 1}: the clusters give only {batches.shape[1]} images, fewer than "
            f"a batch of {batch_size}: the batch shrinks for this epoch"
        )


def summary(
    settings: Settings, dataset: str, run: RunFolder, epochs: Epochs, model_epoch: int, choice: Choice
) -> dict[str, Any]:
    """What the run gave: its last epoch's figures, the model and the epoch it is of."""
    wanted = settings.inter.selection.model
    model_of: dict[str, Any] = {"choice": wanted, "epoch": model_epoch}
    if wanted == "selected" and choice.selected is not None:
        model_of["score"] = choice.selected.score
    oracle = {} if choice.oracle is None else {"oracle": {**asdict(choice.oracle), "model": str(run.oracle)}}
    return {
        "dataset": dataset,
        "epochs": epochs.done,
        "model": str(run.model),
        "model_of": model_of,
        **oracle,
        **to_json(epochs.state.figures[-1]),
    }
