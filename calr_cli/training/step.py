"""One step: this rank's groups of a batch forwards and backwards, the weights' step, the rows' update."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from calr_cli.data.augment import Augmentation
from calr_cli.distributed import collectives
from calr_cli.models.batch_norm import fixed_running_statistics, rank_groups
from calr_cli.models.camera_classifier import CameraClassifier, draw_kept_units
from calr_cli.models.encoder import Encoder
from calr_cli.models.vit import draw_kept_branches
from calr_cli.training.networks import Networks
from calr_cli.training.objective import Objective
from calr_cli.transfer import to_device
from calr_cli.types import IntArray

_WITHOUT_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers"
    if "forward_sync_buffers" in signature(DistributedDataParallel).parameters
    else "broadcast_buffers": False
}
"""Says that buffers are not sent in every step; newer versions of torch warn of the older name."""

Draws = Callable[[int, str], np.random.Generator]
"""``draws(iteration, purpose)``: the source of what is random there."""


@dataclass(frozen=True)
class Batching:
    """How a batch is worked on.

    Attributes:
        augmentation: Applied to every batch.
        draws: Source of what is random.
        group_size: Images that share batch-norm statistics, which are worked on at a time; 0: a whole batch.
    """

    augmentation: Augmentation
    draws: Draws
    group_size: int


class TrainingStep:
    """What a step needs and what stays the same over an epoch.

    The gradient is that of the mean loss over the whole batch, whatever the groups and ranks: each image's
    share of that mean is known beforehand, so groups are worked on one after another, and only one of them
    has to fit into the device.

    Args:
        networks: Put into training mode.
        objective: What is minimised.
        batch_size: B, images of a batch over all ranks.
        batching: How a batch is worked on.
    """

    def __init__(self, networks: Networks, objective: Objective, batch_size: int, batching: Batching) -> None:
        self.optimiser, self.objective, self.batching = networks.optimiser, objective, batching
        self.ranks = collectives.world_size()
        parts = rank_groups(batch_size, batching.group_size, self.ranks)
        self.counts = [sum(group.stop - group.start for group in part) for part in parts]
        mine = parts[collectives.rank()]
        # A rank without a group goes along on two images that count for nothing: the others wait for it.
        self.idle = not mine
        self.groups = mine or [slice(0, 2)]
        self.share = slice(self.groups[0].start, self.groups[-1].stop)
        alignment = objective.alignment
        classifier = None if alignment is None else alignment.classifier
        self.drop_path = networks.encoder.drop_path
        self.network: nn.Module = _Network(networks.encoder, classifier).train()
        # Parameters whose gradients the step adds up; DistributedDataParallel does that itself.
        self.trained = [p for p in self.network.parameters() if p.requires_grad] if self.ranks == 1 else []
        if self.ranks > 1:
            # Buffers are running statistics, which are copied once an epoch (`train_epoch`).
            self.network = DistributedDataParallel(
                self.network, gradient_as_bucket_view=True, **_WITHOUT_BUFFERS
            )

    def __call__(self, iteration: int, batch: IntArray, pixels: Tensor) -> Tensor:
        """Take the step.

        Args:
            iteration: Of the epoch, the key of its random draws.
            batch: (B,) positions of the whole batch.
            pixels: (share, H, W, 3) uint8 of this rank's part of it, on the device.

        Returns:
            (2,) on the device: this rank's share of the mean contrastive and camera loss.
        """
        augmentation, draws = self.batching.augmentation, self.batching.draws
        alignment = self.objective.alignment
        height, width = pixels.shape[1:3]
        changes = augmentation.draw(len(batch), height, width, draws(iteration, "augmentation"))
        units = None if alignment is None else draw_kept_units(len(batch), draws(iteration, "dropout"))
        branches = None
        if self.drop_path:
            branches = draw_kept_branches(len(batch), self.drop_path, draws(iteration, "drop path"))
        shares = self.objective.shares(batch)
        self.optimiser.zero_grad()
        features, losses, gradients = [], [], list[Tensor]()
        # Autocast keeps its bf16 copies of the weights until the outermost one ends: all groups share them.
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=False):
            for group in self.groups:
                local = slice(group.start - self.share.start, group.stop - self.share.start)
                images = augmentation.apply(pixels[local], changes.part(group))
                with self._around(group):
                    kept = None if units is None else to_device(units[group], pixels.device)
                    through = None if branches is None else to_device(branches[group], pixels.device)
                    found, logits = self.network(images, kept, through)
                    each = self.objective.losses(found, batch[group])
                    cluster = (to_device(shares[group], found.device).to(each) * each).sum() * (not self.idle)
                    loss, camera = cluster, cluster.new_zeros(())
                    if alignment is not None:
                        share = 0 if self.idle else len(images) / len(batch)
                        camera = share * self.objective.camera_loss(logits, batch[group])
                        loss = cluster + alignment.weight * camera
                    # DistributedDataParallel takes the mean over ranks, and the losses are to be summed.
                    (loss * self.ranks).backward()
                gradients = self._added(gradients)
                features.append(found.detach())
                losses.append(torch.stack([cluster.detach(), camera.detach()]))
        for parameter, gradient in zip(self.trained, gradients, strict=True):
            parameter.grad = gradient
        self.optimiser.step()
        mine = torch.cat(features)[: self.counts[collectives.rank()]]
        self.objective.update(collectives.gather_rows(mine, self.counts), batch)
        return torch.stack(losses).sum(dim=0)

    def _added(self, before: list[Tensor]) -> list[Tensor]:
        """Gradients of ``trained``, taken away from them, plus ``before``: all tensors in a few launches.

        Left to itself, autograd adds each tensor by a launch of its own.
        """
        latest = []
        for parameter in self.trained:
            assert parameter.grad is not None
            latest.append(parameter.grad)
            parameter.grad = None
        if before:
            torch._foreach_add_(before, latest)
        return before or latest

    def _around(self, group: slice) -> ExitStack:
        """What holds for one group: whether running statistics follow it, whether gradients are exchanged."""
        around = ExitStack()
        if self.idle or (self.batching.group_size > 0 and group.start > 0):
            around.enter_context(fixed_running_statistics(self.network))
        if isinstance(self.network, DistributedDataParallel) and group is not self.groups[-1]:
            around.enter_context(self.network.no_sync())
        return around


class _Network(nn.Module):
    """Encoder and camera classifier as the one module that gradients are exchanged for."""

    def __init__(self, encoder: Encoder, classifier: CameraClassifier | None) -> None:
        super().__init__()
        self.encoder, self.classifier = encoder, classifier

    def forward(
        self, images: Tensor, kept: Tensor | None, branches: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        features = self.encoder(images, branches)
        return features, None if self.classifier is None else self.classifier(features, kept)
