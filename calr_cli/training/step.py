"""One step: this rank's groups of a batch forwards and backwards, the weights' step, the memory's update."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from calr_cli.data.augment import Augmentation
from calr_cli.distributed import collectives
from calr_cli.models.batch_norm import fixed_running_statistics, rank_groups
from calr_cli.models.camera_classifier import CameraClassifier, draw_kept_units
from calr_cli.models.encoder import Encoder
from calr_cli.training.losses import CameraLoss, camera_loss, image_shares
from calr_cli.training.memory import ClusterMemory, UpdateMode
from calr_cli.training.proxies import CameraProxies
from calr_cli.transfer import to_device
from calr_cli.types import FloatArray, IntArray

Draws = Callable[[int, str], np.random.Generator]
"""``draws(iteration, purpose)``: the source of what is random there."""


@dataclass(frozen=True)
class ProxyContrast:
    """The contrastive loss against camera proxies, and its factor beside that against clusters."""

    proxies: CameraProxies
    weight: float


@dataclass(frozen=True)
class CameraAlignment:
    """The adversarial part of stage 2: a camera classifier behind gradient reversal."""

    classifier: CameraClassifier
    weight: float
    kind: CameraLoss


class TrainingStep:
    """What a step needs and what stays the same over an epoch; see `epoch.train_epoch` for the arguments.

    The gradient is that of the mean loss over the whole batch, whatever the groups and ranks: each image's
    share of that mean is known beforehand, so groups are worked on one after another, and only one of them
    has to fit into the device.
    """

    def __init__(
        self,
        encoder: Encoder,
        memory: ClusterMemory,
        optimiser: Optimizer,
        labels: IntArray,
        camids: IntArray,
        *,
        batch_size: int,
        group_size: int,
        augmentation: Augmentation,
        draws: Draws,
        update_mode: UpdateMode,
        class_weights: FloatArray | None,
        alignment: CameraAlignment | None,
        contrast: ProxyContrast | None,
    ) -> None:
        self.memory, self.optimiser = memory, optimiser
        self.labels, self.camids, self.class_weights = labels, camids, class_weights
        self.augmentation, self.draws, self.update_mode = augmentation, draws, update_mode
        self.alignment, self.contrast = alignment, contrast
        self.ranks = collectives.world_size()
        parts = rank_groups(batch_size, group_size, self.ranks)
        self.counts = [sum(group.stop - group.start for group in part) for part in parts]
        mine = parts[collectives.rank()]
        # A rank without a group goes along on two images that count for nothing: the others wait for it.
        self.idle = not mine
        self.groups = mine or [slice(0, 2)]
        self.share = slice(self.groups[0].start, self.groups[-1].stop)
        self.split = group_size > 0
        self.network: nn.Module = _Network(encoder, alignment.classifier if alignment else None).train()
        if self.ranks > 1:
            self.network = DistributedDataParallel(self.network, gradient_as_bucket_view=True)

    def __call__(self, iteration: int, batch: IntArray, pixels: Tensor) -> Tensor:
        """Take the step.

        Args:
            iteration: Of the epoch, the key of its random draws.
            batch: (B,) positions of the whole batch.
            pixels: (share, H, W, 3) uint8 of this rank's part of it, on the device.

        Returns:
            (2,) on the device: this rank's share of the mean contrastive and camera loss.
        """
        height, width = pixels.shape[1:3]
        changes = self.augmentation.draw(len(batch), height, width, self.draws(iteration, "augmentation"))
        units = draw_kept_units(len(batch), self.draws(iteration, "dropout")) if self.alignment else None
        shares = image_shares(self.labels[batch], self.class_weights)
        self.optimiser.zero_grad()
        features, losses = [], []
        for group in self.groups:
            local = slice(group.start - self.share.start, group.stop - self.share.start)
            images = self.augmentation.apply(pixels[local], changes.part(group))
            with self._around(group):
                kept = None if units is None else to_device(units[group], pixels.device)
                found, cameras = self.network(images, kept)
                cluster = self._cluster_loss(found, batch[group], shares[group])
                camera = self._camera_loss(cameras, batch[group], len(batch))
                weight = self.alignment.weight if self.alignment is not None else 0.0
                # DistributedDataParallel takes the mean over ranks, and the losses are to be summed.
                ((cluster + weight * camera) * self.ranks).backward()
            features.append(found.detach())
            losses.append(torch.stack([cluster.detach(), camera.detach()]))
        self.optimiser.step()
        mine = torch.cat(features)[: self.counts[collectives.rank()]]
        whole = collectives.gather_rows(mine, self.counts)
        self.memory.update(whole, self.labels[batch], self.update_mode)
        if self.contrast is not None:
            self.contrast.proxies.update(whole, batch)
        return torch.stack(losses).sum(dim=0)

    def _around(self, group: slice) -> ExitStack:
        """What holds for one group: whether running statistics follow it, whether gradients are exchanged."""
        around = ExitStack()
        if self.idle or (self.split and group.start > 0):
            around.enter_context(fixed_running_statistics(self.network))
        if isinstance(self.network, DistributedDataParallel) and group is not self.groups[-1]:
            around.enter_context(self.network.no_sync())
        return around

    def _cluster_loss(self, features: Tensor, positions: IntArray, shares: npt.NDArray[np.float64]) -> Tensor:
        labels = to_device(self.labels[positions], features.device)
        losses = self.memory.losses(features, labels)
        if self.contrast is not None:
            losses = losses + self.contrast.weight * self.contrast.proxies.losses(features, labels)
        return (to_device(shares, features.device).to(losses) * losses).sum() * (not self.idle)

    def _camera_loss(self, logits: Tensor | None, positions: IntArray, batch_size: int) -> Tensor:
        if logits is None or self.alignment is None:
            return self.memory.centroids.new_zeros(())
        camids = to_device(self.camids[positions], logits.device)
        share = 0 if self.idle else len(positions) / batch_size
        return share * camera_loss(logits, camids, self.alignment.kind)


class _Network(nn.Module):
    """Encoder and camera classifier as the one module that gradients are exchanged for."""

    def __init__(self, encoder: Encoder, classifier: CameraClassifier | None) -> None:
        super().__init__()
        self.encoder, self.classifier = encoder, classifier

    def forward(self, images: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor | None]:
        features = self.encoder(images)
        return features, None if self.classifier is None else self.classifier(features, kept)
