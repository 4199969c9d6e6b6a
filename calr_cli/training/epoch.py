"""One epoch of training, the same loop for both stages and for any number of devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from calr_cli.data.augment import Augmentation
from calr_cli.data.loaders import PixelSource
from calr_cli.distributed import collectives
from calr_cli.distributed.interruption import deferred_interrupt
from calr_cli.errors import MemoryLimitError, TrainingError
from calr_cli.events import Reporter
from calr_cli.models.encoder import Encoder
from calr_cli.training.memory import ClusterMemory, UpdateMode
from calr_cli.training.step import CameraAlignment, Draws, ProxyContrast, TrainingStep
from calr_cli.transfer import to_device
from calr_cli.types import FloatArray, IntArray

SAVE_SECONDS = 600
"""After this long an epoch that is still going is saved as well."""

_ITERATIONS_PER_LOOK = {"cpu": 1, "cuda": 10}  # to look at a loss is to wait for the GPU


@dataclass(frozen=True)
class EpochLosses:
    """Mean losses over the iterations of an epoch; ``camera`` is None without a classifier.

    ``cluster`` is the whole contrastive loss, that against camera proxies included.
    """

    cluster: float
    camera: float | None


def train_epoch(
    encoder: Encoder,
    memory: ClusterMemory,
    optimiser: Optimizer,
    pixels: PixelSource,
    labels: IntArray,
    camids: IntArray,
    batches: IntArray,
    *,
    augmentation: Augmentation,
    draws: Draws,
    group_size: int,
    reporter: Reporter,
    title: str,
    update_mode: UpdateMode = "all",
    class_weights: FloatArray | None = None,
    alignment: CameraAlignment | None = None,
    contrast: ProxyContrast | None = None,
    average: AveragedModel | None = None,
    losses: Tensor | None = None,
    save: Callable[[Tensor], None] = lambda losses: None,
) -> EpochLosses:
    """Train on ``batches``: loss against the memory, a step, then the memory's update.

    Every rank calls it with the same arguments and works on its groups of each batch; weights and memory
    stay the same on all.

    Args:
        encoder: The network; put into training mode, works where its weights are.
        memory: Rows of the K clusters, on the same device.
        optimiser: Of the encoder's parameters (and the classifier's).
        pixels: Of N images.
        labels: (N,) pseudo labels 0..K-1 of every image in ``batches``.
        camids: (N,).
        batches: (T, B) positions.
        augmentation: Applied to every batch.
        draws: Source of what is random.
        group_size: Images that share batch-norm statistics, which are worked on at a time; 0: a whole batch.
        reporter: Shown a progress in iterations.
        title: Of that progress.
        update_mode: Of the memory.
        class_weights: (K,) weights of the clusters in the loss.
        alignment: Adds the weighted camera loss.
        contrast: Adds the weighted loss against camera proxies.
        average: Follows the encoder after every step.
        losses: (T0, 2) of the iterations that are done already, as ``save`` was given them.
        save: Called with the losses so far, every `SAVE_SECONDS` and before an interrupt ends the epoch.

    Raises:
        TrainingError: The loss is not a finite number; names the iteration.
        DataError: An image that cannot be read.
        MemoryLimitError: A group does not fit into the GPU.
        KeyboardInterrupt: SIGINT or SIGTERM came; the step was finished and ``save`` called.
    """
    device = encoder.device
    take_step = TrainingStep(
        encoder,
        memory,
        optimiser,
        labels,
        camids,
        batch_size=batches.shape[1],
        group_size=group_size,
        augmentation=augmentation,
        draws=draws,
        update_mode=update_mode,
        class_weights=class_weights,
        alignment=alignment,
        contrast=contrast,
    )
    every = _ITERATIONS_PER_LOOK[device.type]
    seen = torch.zeros(0, 2) if losses is None else losses
    pending: list[Tensor] = []  # losses that are still on the device
    parts = [batch[take_step.share] for batch in batches[len(seen) :]]
    blocks = pixels.batches(parts, pin=device.type == "cuda")
    saved = perf_counter()
    steps = reporter.progress(title, len(batches), "iterations", len(seen))
    with steps as progress, deferred_interrupt() as interrupt:
        for iteration, block in enumerate(blocks, start=len(seen)):
            try:
                pending.append(take_step(iteration, batches[iteration], to_device(block, device)))
            except torch.cuda.OutOfMemoryError:
                raise _too_large(device, take_step.groups) from None
            if average is not None:
                average.update_parameters(encoder)
            if (iteration + 1) % every and iteration + 1 < len(batches):
                continue
            # The ranks look together, and so agree on what they see and on when to stop.
            due = perf_counter() - saved > SAVE_SECONDS
            flags = torch.tensor([interrupt.requested, due], dtype=torch.float32, device=device)
            look = collectives.sum_over_ranks(torch.stack([*pending, flags.to(pending[0])])).cpu()
            recent, stop, save_now = look[:-1], bool(look[-1, 0]), bool(look[-1, 1])
            _require_finite(recent, title, iteration + 1 - len(recent))
            seen = torch.cat([seen, recent.to(seen)])
            progress.advance(len(recent), loss=float(recent.sum(dim=1).mean()))
            pending.clear()
            if stop or save_now:
                save(seen)
                saved = perf_counter()
            if stop:
                raise KeyboardInterrupt
    if collectives.world_size() > 1:
        # Running statistics follow the first group, which rank 0 has.
        for buffer in (*encoder.buffers(), *(() if average is None else average.buffers())):
            collectives.copy_from_main(buffer)
    mean = seen.mean(dim=0).tolist()
    return EpochLosses(mean[0], mean[1] if alignment is not None else None)


def _require_finite(losses: Tensor, title: str, before: int) -> None:
    finite = losses.isfinite().all(dim=1)
    if not finite.all():
        first = before + 1 + int((~finite).int().argmax())
        raise TrainingError(
            f"{title}: the loss is not a number at iteration {first}",
            "What was saved last is good: continue from it with a lower optimiser.lr or a higher "
            "memory.temperature of this stage (--resume RUN_FOLDER --set KEY=VALUE)",
        )


def _too_large(device: torch.device, groups: list[slice]) -> MemoryLimitError:
    size = max(group.stop - group.start for group in groups)
    return MemoryLimitError(
        f"the memory of {device} is full with {size} images at a time",
        "A batch is worked on in groups and its gradients are accumulated: continue with --resume RUN_FOLDER "
        f"--set batch_norm_group_size={max(size // 2, 2)}, or start anew with a smaller --height and --width",
    )
