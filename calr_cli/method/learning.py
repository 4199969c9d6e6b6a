"""What both stages do with the labels of an epoch: train on them, from where the epoch stands."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torch import Tensor

from calr_cli.config.schema import Inter, Intra, Settings
from calr_cli.data.loaders import PixelSource
from calr_cli.data.samplers import cluster_batches
from calr_cli.events import Reporter
from calr_cli.method.build import build_augmentation, build_memory
from calr_cli.training.epoch import EpochLosses, train_epoch
from calr_cli.training.optim import scheduled_lr
from calr_cli.training.reproducibility import keyed_rng
from calr_cli.training.state import TrainingState
from calr_cli.training.step import CameraAlignment, ProxyContrast
from calr_cli.types import FloatArray, IntArray


def draw_batches(
    settings: Settings, stage: Inter | Intra, labels: IntArray, camids: IntArray, key: tuple[str | int, ...]
) -> IntArray:
    """The batches of an epoch, (T, B) positions; ``key`` names the stage, its camera, and the epoch."""
    return cluster_batches(
        labels,
        camids,
        batch_size=stage.batch_size,
        num_instances=stage.num_instances,
        iterations=stage.iters,
        rng=keyed_rng(settings.seed, *key, "batches"),
    )


def train_under_way(
    settings: Settings,
    stage: Inter | Intra,
    state: TrainingState,
    file: Path,
    pixels: PixelSource,
    labels: IntArray,
    camids: IntArray,
    batches: IntArray,
    key: tuple[str | int, ...],
    *,
    title: str,
    reporter: Reporter,
    class_weights: FloatArray | None = None,
    alignment: CameraAlignment | None = None,
    groups: IntArray | None = None,
    contrast: ProxyContrast | None = None,
) -> EpochLosses:
    """Train the epoch that is under way to its end; an interrupt leaves its position in ``file``.

    Args:
        settings: What the run is told.
        stage: The stage's own part of them.
        state: Networks, optimiser and the epoch under way.
        file: Where the state is saved.
        pixels: Of N images.
        labels: (N,) pseudo labels to train on.
        camids: (N,).
        batches: (T, B) positions.
        key: Names the stage, its camera, and the epoch.
        title: Of the progress shown.
        reporter: Shown a progress in iterations.
        class_weights: (K,) weights of the clusters in the loss.
        alignment: Adds the camera loss.
        contrast: Adds the loss against camera proxies.
        groups: (K,) group of each cluster: an image is told apart only from the others of its own.

    Raises:
        TrainingError: The loss is not a number.
        DataError: An image that cannot be read.
        MemoryLimitError: A group of images does not fit into the GPU.
    """
    epoch = state.under_way
    assert epoch is not None
    options = stage.optimiser
    lr = scheduled_lr(state.epoch, lr=options.lr, step_size=options.step_size, gamma=options.gamma)
    for group in state.optimiser.param_groups:
        group.update(lr=lr, weight_decay=options.weight_decay)
    device = state.encoder.device
    memory = build_memory(stage.memory, epoch.centroids, device, groups)

    def save(losses: Tensor) -> None:
        epoch.losses, epoch.centroids = losses, memory.centroids
        if contrast is not None:
            epoch.proxies = contrast.proxies.rows
        state.save(file, settings.model_dump())

    return train_epoch(
        state.encoder,
        memory,
        state.optimiser,
        pixels,
        labels,
        camids,
        batches,
        augmentation=build_augmentation(settings),
        draws=partial(keyed_rng, settings.seed, *key),
        group_size=settings.batch_norm_group_size,
        reporter=reporter,
        title=title,
        update_mode=stage.memory.mode,
        class_weights=class_weights,
        alignment=alignment,
        contrast=contrast,
        average=state.average,
        losses=epoch.losses,
        save=save,
    )
