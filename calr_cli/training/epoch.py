"""One epoch of training, the same loop for both stages and for any number of devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from calr_cli.allocation import is_gpu_full
from calr_cli.data.loaders import PixelSource
from calr_cli.distributed import collectives
from calr_cli.distributed.interruption import deferred_interrupt
from calr_cli.errors import MemoryLimitError, TrainingError
from calr_cli.events import Reporter
from calr_cli.training.networks import Networks
from calr_cli.training.objective import Objective
from calr_cli.training.step import Batching, TrainingStep
from calr_cli.transfer import copied_ahead, to_device
from calr_cli.types import IntArray

SAVE_SECONDS = 600
"""After this long an epoch that is still going is saved as well."""

_ITERATIONS_PER_LOOK = {"cpu": 1, "cuda": 10}  # to look at a loss is to wait for the GPU


@dataclass(frozen=True)
class EpochLosses:
    """Mean losses over the iterations of an epoch; ``camera`` is None without a classifier.

    ``cluster`` is the sum of all contrastive losses.
    """

    cluster: float
    camera: float | None


@dataclass(frozen=True)
class Saving:
    """How an epoch that may be interrupted goes on.

    Attributes:
        losses: (T0, 2) of the iterations that are done already, as ``save`` was given them.
        save: Called with the losses so far, every `SAVE_SECONDS` and before an interrupt ends the epoch.
    """

    losses: Tensor = field(default_factory=lambda: torch.zeros(0, 2))
    save: Callable[[Tensor], None] = lambda losses: None


def train_epoch(
    networks: Networks,
    objective: Objective,
    pixels: PixelSource,
    batches: IntArray,
    batching: Batching,
    *,
    title: str,
    reporter: Reporter,
    saving: Saving | None = None,
) -> EpochLosses:
    """Train on ``batches``: loss, a step of the weights, then the rows of the objective move.

    Every rank calls it with the same arguments and works on its groups of each batch; weights and rows
    stay the same on all.

    Args:
        networks: Put into training mode; they work where their weights are.
        objective: What is minimised, on the same device.
        pixels: Of N images.
        batches: (T, B) positions.
        batching: How a batch is worked on.
        title: Of the progress shown.
        reporter: Shown a progress in iterations.
        saving: Where the epoch goes on, and how it is saved on the way; None: from its beginning, not at all.

    Raises:
        TrainingError: The loss is not a finite number; names the iteration.
        DataError: An image that cannot be read.
        MemoryLimitError: A group does not fit into the GPU.
        KeyboardInterrupt: SIGINT or SIGTERM came; the step was finished and the epoch saved.
    """
    device, saving = networks.device, saving or Saving()
    take_step = TrainingStep(networks, objective, batches.shape[1], batching)
    every = _ITERATIONS_PER_LOOK[device.type]
    seen = saving.losses
    pending: list[Tensor] = []  # losses that are still on the device
    parts = [batch[take_step.share] for batch in batches[len(seen) :]]
    blocks = copied_ahead(pixels.batches(parts, pin=device.type == "cuda"), device)
    saved = perf_counter()
    steps = reporter.progress(title, len(batches), "iterations", len(seen))
    with steps as progress, deferred_interrupt() as interrupt, _groups_that_fit(device, take_step.groups):
        for iteration, block in enumerate(blocks, start=len(seen)):
            pending.append(take_step(iteration, batches[iteration], block))
            networks.follow()
            if (iteration + 1) % every and iteration + 1 < len(batches):
                continue
            # The ranks look together, and so agree on what they see and on when to stop.
            due = perf_counter() - saved > SAVE_SECONDS
            flags = to_device(np.array([interrupt.requested, due], np.float32), device)
            look = collectives.sum_over_ranks(torch.stack([*pending, flags.to(pending[0])])).cpu()
            recent, stop, save_now = look[:-1], bool(look[-1, 0]), bool(look[-1, 1])
            _require_finite(recent, title, iteration + 1 - len(recent))
            seen = torch.cat([seen, recent.to(seen)])
            progress.advance(len(recent), loss=float(recent.sum(dim=1).mean()))
            pending.clear()
            if stop or save_now:
                saving.save(seen)
                saved = perf_counter()
            if stop:
                raise KeyboardInterrupt
    if collectives.world_size() > 1:
        # Running statistics follow the first group, which rank 0 has.
        for module in networks.modules.values():
            for buffer in module.buffers():
                collectives.copy_from_main(buffer)
    mean = seen.mean(dim=0).tolist()
    return EpochLosses(mean[0], mean[1] if objective.alignment is not None else None)


def _require_finite(losses: Tensor, title: str, before: int) -> None:
    finite = losses.isfinite().all(dim=1)
    if not finite.all():
        first = before + 1 + int((~finite).int().argmax())
        raise TrainingError(
            f"{title}: the loss is not a number at iteration {first}",
            "What was saved last is good: continue from it with a lower optimiser.lr or a higher "
            "memory.temperature of this stage (--resume RUN_FOLDER --set KEY=VALUE)",
        )


@contextmanager
def _groups_that_fit(device: torch.device, groups: list[slice]) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not is_gpu_full(error):
            raise
        size = max(group.stop - group.start for group in groups)
        raise MemoryLimitError(
            f"the memory of {device} is full with {size} images at a time",
            "A batch is worked on in groups and its gradients are accumulated: continue with --resume "
            f"RUN_FOLDER --set batch_norm_group_size={max(size // 2, 2)}, or start anew with a smaller "
            "--height and --width",
        ) from None
