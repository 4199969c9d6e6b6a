"""Stage 2: one network over all cameras, trained on global labels refined by local ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calr_cli.clustering.centroids import cluster_centroids
from calr_cli.clustering.refinement import cluster_weights
from calr_cli.config.schema import Settings
from calr_cli.data.loaders import PixelSource
from calr_cli.distances.knn import choose_backend
from calr_cli.distributed import collectives
from calr_cli.events import Reporter, SilentReporter
from calr_cli.files import atomic_write
from calr_cli.method.build import (
    build_alignment,
    build_contrast,
    build_encoder,
    build_extractor,
    build_pixels,
    build_state,
    model_card,
)
from calr_cli.method.labels import (
    EpochLabels,
    check_clusters,
    label_counts,
    label_epoch,
    refinement_quality,
)
from calr_cli.method.learning import draw_batches, train_under_way
from calr_cli.method.monitoring import Monitor
from calr_cli.models.encoder import Encoder
from calr_cli.runs.folder import RunFolder
from calr_cli.runs.projector import SAMPLE, write_projection
from calr_cli.training.checkpoint import load_model, save_model
from calr_cli.training.proxies import proxy_labels
from calr_cli.training.state import EpochUnderWay, TrainingState
from calr_cli.types import Dataset, FloatArray, ImageSet, IntArray


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
        settings: What the run is told.
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
    inter, images = settings.inter, dataset.train
    encoder = build_encoder(settings, "inter", device)
    alignment = build_alignment(settings, dataset.num_cameras, encoder, device)
    state = build_state(inter.optimiser, encoder, alignment, inter.average)
    monitor = Monitor(settings, dataset, reporter)
    reporter.note(f"neighbour search: {choose_backend(settings.search.backend, device)} on {device}")
    if state.restore(run.state):
        reporter.note(f"resuming {run.path} {state.position()} of {inter.epochs}")
    elif inter.start == "intra":
        encoder.load_state_dict(collectives.made_by_main(lambda: load_model(run.start)[0].state_dict()))
    if collectives.is_main():
        run.keep_metrics(state.rows)
    pixels = build_pixels(settings, images, reporter)
    start, labels = state.epoch, None

    for epoch in range(start, inter.epochs + 1):
        if epoch == inter.epochs and inter.selection.model == "last":
            break
        if state.under_way is None:
            told = reporter if epoch == start else SilentReporter()  # what holds for every epoch, once
            state.under_way = _begin_epoch(
                settings, state, pixels, images.camids, local_labels, told, reporter
            )
            _judge(settings, state, run)
        labels = EpochLabels.from_tensors(state.under_way.labels)
        if epoch == inter.epochs or _patience_is_over(settings, state):
            break
        refined, seconds = labels.refined_labels, state.under_way.seconds
        weighted = inter.weights.mode == "entropy" and epoch >= inter.weights.start_epoch
        weights = np.maximum(cluster_weights(refined, images.camids), inter.weights.floor)
        batches = draw_batches(settings, inter, refined, images.camids, ("inter", epoch))
        if batches.shape[1] < inter.batch_size:
            reporter.warning(
                f"epoch {epoch + 1}: the clusters give only {batches.shape[1]} images, fewer than "
                f"a batch of {inter.batch_size}: the batch shrinks for this epoch"
            )
        began = perf_counter()
        losses = train_under_way(
            settings,
            inter,
            state,
            run.state,
            pixels,
            refined,
            images.camids,
            batches,
            ("inter", epoch),
            title=f"epoch {epoch + 1}/{inter.epochs}",
            reporter=reporter,
            class_weights=weights if weighted else None,
            alignment=alignment if epoch < inter.camera.adversarial_epochs else None,
            contrast=build_contrast(settings, state.under_way.proxies, refined, images.camids, device),
        )
        row: dict[str, Any] = {
            "epoch": epoch,
            "images": len(images),
            **label_counts(labels),
            "zero_weight_clusters": int((weights == 0).sum()) if weighted else None,
            "batch": batches.shape[1],
            "loss": losses.cluster,
            "camera_loss": losses.camera,
            "criterion": labels.criterion,
            "seconds": {**seconds, "train": perf_counter() - began},
        }
        if images.has_identities:
            row["quality"] = refinement_quality(labels, images.pids)
        state.epoch, state.under_way = epoch + 1, None
        if collectives.is_main():
            save_model(run.last, state.model, model_card(settings, "inter", state.epoch))
        if found := monitor.look(state.model, state.epoch):
            row["monitoring"] = found
            if inter.selection.oracle:
                _keep_best("oracle", found["mAP"], state, settings, run.oracle)
        state.rows.append(row)
        state.save(run.state, settings.model_dump())
        if collectives.is_main():
            run.append_metrics(row)
        reporter.metric(row)
    if collectives.broadcast(run.tensorboard.is_dir()):
        _show_features(settings, encoder, images, pixels, labels, run, reporter)
    chosen = state.best["selected"] if inter.selection.model == "selected" else {"epoch": state.epoch}
    reporter.note(
        f"{run.model.name}: {inter.selection.model}, after {chosen['epoch']} of {state.epoch} epochs"
    )
    if best := state.best.get("oracle"):
        words = f"oracle, best on the test set, after {best['epoch']} epochs: mAP {best['score']:.1f}"
        reporter.note(f"{run.oracle.name}: {words}")
    if collectives.is_main():
        if inter.selection.model == "selected":
            run.write_selection(state.best["criteria"], chosen["epoch"])
        with atomic_write(run.model) as temporary:
            shutil.copyfile(run.selected if inter.selection.model == "selected" else run.last, temporary)
    return {
        "dataset": dataset.name,
        "epochs": state.epoch,
        "model": str(run.model),
        "model_of": {"choice": inter.selection.model, **chosen},
        **({"oracle": {**state.best["oracle"], "model": str(run.oracle)}} if "oracle" in state.best else {}),
        **state.rows[-1],
    }


def _begin_epoch(
    settings: Settings,
    state: TrainingState,
    pixels: PixelSource,
    camids: IntArray,
    local_labels: IntArray | None,
    told: Reporter,
    reporter: Reporter,
) -> EpochUnderWay:
    """Extract, cluster and refine; features are of all ranks, labels are made once and broadcast."""
    began = perf_counter()
    features: FloatArray = build_extractor(settings, reporter)(state.encoder, pixels)
    extracted = perf_counter()
    device = state.encoder.device

    def make() -> tuple[dict[str, Tensor], Tensor, Tensor]:
        with reporter.progress("clustering and refinement", 0):
            labels = label_epoch(settings, features, camids, local_labels, state.epoch, device, told)
        if state.epoch < settings.inter.epochs:
            check_clusters(labels, settings, reporter)
        refined = labels.refined_labels
        rows = torch.zeros(0, 0)
        if settings.inter.proxies.weight:
            rows = torch.from_numpy(cluster_centroids(features, proxy_labels(refined, camids)))
        return labels.to_tensors(), torch.from_numpy(cluster_centroids(features, refined)), rows

    tensors, centroids, proxies = collectives.made_by_main(make)
    seconds = {"extract": extracted - began, "cluster": perf_counter() - extracted}
    return EpochUnderWay(tensors, centroids, torch.zeros(0, 2), seconds, proxies)


def _judge(settings: Settings, state: TrainingState, run: RunFolder) -> None:
    """Keep the model that the epoch begins with, if no earlier one had a better criterion.

    Where the model is a running average of the weights, it lags behind the network that made the labels; so
    its criterion is the same running average of theirs.
    """
    assert state.under_way is not None
    if state.epoch > 0:
        found = EpochLabels.from_tensors(state.under_way.labels).criterion
        criteria = state.best.setdefault("criteria", {})
        share = settings.inter.average**settings.inter.iters
        criterion = found + share * (criteria.get(str(state.epoch - 1), found) - found)
        criteria[str(state.epoch)] = criterion
        _keep_best("selected", criterion, state, settings, run.selected)


def _keep_best(name: str, score: float, state: TrainingState, settings: Settings, file: Path) -> None:
    if name not in state.best or score > state.best[name]["score"]:
        state.best[name] = {"epoch": state.epoch, "score": score}
        if collectives.is_main():
            # Not a copy of last.pth: a run that was killed may have written a later one there.
            save_model(file, state.model, model_card(settings, "inter", state.epoch))


def _show_features(
    settings: Settings,
    encoder: Encoder,
    images: ImageSet,
    pixels: PixelSource,
    labels: EpochLabels | None,
    run: RunFolder,
    reporter: Reporter,
) -> None:
    """Features of a sample for TensorBoard, by the encoder as it is, with the labels that it gave last."""
    sample = np.arange(min(len(images), SAMPLE))  # records are in the order of their digests: any of them
    some = pixels.subset(sample)
    features = build_extractor(settings, reporter)(encoder, some, title="features for TensorBoard")
    if collectives.is_main():
        shown = images.subset(sample)
        columns: dict[str, Any] = {"image": shown.paths, "camera": shown.camids}
        if labels is not None:
            columns["cluster"] = labels.refined_labels[sample]
        if shown.has_identities:
            columns["identity"] = shown.pids
        (block,) = some.batches([sample])
        write_projection(run.tensorboard, features, block.numpy(), columns)


def _patience_is_over(settings: Settings, state: TrainingState) -> bool:
    patience = settings.inter.selection.patience
    return (
        patience is not None and state.epoch > 0 and state.epoch - state.best["selected"]["epoch"] >= patience
    )
