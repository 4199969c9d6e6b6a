"""One epoch of training, the same loop for both stages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from calr_cli.data.augment import Augmentation
from calr_cli.data.loaders import pixel_batches
from calr_cli.errors import TrainingError
from calr_cli.events import Reporter
from calr_cli.models.camera_classifier import CameraClassifier
from calr_cli.models.encoder import Encoder
from calr_cli.training.losses import CameraLoss, camera_loss
from calr_cli.training.memory import ClusterMemory, UpdateMode
from calr_cli.types import FloatArray, ImageSet, IntArray

_CHECK_EVERY = 10


@dataclass(frozen=True)
class CameraAlignment:
    """The adversarial part of stage 2: a camera classifier behind gradient reversal."""

    classifier: CameraClassifier
    weight: float
    kind: CameraLoss


@dataclass(frozen=True)
class EpochLosses:
    """Mean losses over the iterations of an epoch; ``camera`` is None without a classifier."""

    cluster: float
    camera: float | None


def train_epoch(
    encoder: Encoder,
    memory: ClusterMemory,
    optimiser: Optimizer,
    images: ImageSet,
    labels: IntArray,
    batches: IntArray,
    *,
    augmentation: Augmentation,
    rng: np.random.Generator,
    height: int,
    width: int,
    workers: int,
    reporter: Reporter,
    title: str,
    update_mode: UpdateMode = "all",
    class_weights: FloatArray | None = None,
    alignment: CameraAlignment | None = None,
) -> EpochLosses:
    """Train on ``batches``: loss against the memory, a step, then the memory's update.

    Args:
        encoder: The network; put into training mode, works where its weights are.
        memory: Rows of the K clusters, on the same device.
        optimiser: Of the encoder's parameters (and the classifier's).
        images: N images.
        labels: (N,) pseudo labels 0..K-1 of every image in ``batches``.
        batches: (T, B) positions.
        augmentation: Applied to every batch.
        rng: Source of the augmentation's draws.
        height: Of the network input.
        width: Of the network input.
        workers: Threads that decode.
        reporter: Shown a progress in iterations.
        title: Of that progress.
        update_mode: Of the memory.
        class_weights: (K,) weights of the clusters in the loss.
        alignment: Adds the weighted camera loss.

    Raises:
        TrainingError: The loss is not a finite number; names the iteration.
        DataError: An image that cannot be read.
    """
    encoder.train()
    device = next(encoder.parameters()).device
    weights = None if class_weights is None else torch.from_numpy(class_weights).to(device)
    pixels = pixel_batches(images, list(batches), height=height, width=width, workers=workers)
    losses: list[Tensor] = []  # stay on the device: fetching one makes the host wait for it
    with reporter.progress(title, len(batches), "iterations") as progress:
        for iteration, (batch, block) in enumerate(zip(batches, pixels, strict=True)):
            targets = torch.from_numpy(labels[batch]).to(device)
            features = encoder(augmentation(block.to(device), rng))
            cluster = memory.loss(features, targets, weights)
            total, camera = cluster, torch.zeros_like(cluster)
            if alignment is not None:
                camids = torch.from_numpy(images.camids[batch]).to(device)
                camera = camera_loss(alignment.classifier(features), camids, alignment.kind)
                total = cluster + alignment.weight * camera
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
            memory.update(features.detach(), targets, update_mode)
            losses.append(torch.stack([cluster.detach(), camera.detach()]))
            if (iteration + 1) % _CHECK_EVERY == 0 or iteration + 1 == len(batches):
                progress.advance(iteration % _CHECK_EVERY + 1, loss=_checked(losses, iteration))
    mean = torch.stack(losses).mean(dim=0).tolist()
    return EpochLosses(mean[0], mean[1] if alignment is not None else None)


def _checked(losses: list[Tensor], iteration: int) -> float:
    recent = torch.stack(losses[-_CHECK_EVERY:]).sum(dim=1).cpu()
    if not recent.isfinite().all():
        first = iteration + 1 - len(recent) + int((~recent.isfinite()).int().argmax()) + 1
        raise TrainingError(
            f"the loss is not a number at iteration {first}",
            "Start a new run with a lower optimiser.lr or a higher memory.temperature of this stage",
        )
    return float(recent.mean())
