"""How much memory and time a step will take, told before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from time import perf_counter

import numpy as np
import torch

from calr_cli.allocation import available_memory, gigabytes
from calr_cli.config.schema import Settings
from calr_cli.distances.knn import BLOCK_BYTES
from calr_cli.events import Reporter
from calr_cli.models.encoder import Encoder
from calr_cli.training.precision import choose_precision
from calr_cli.types import ImageSet

_LONG_SECONDS = 5
_LARGE_BYTES = 10**9
_TIMED_IMAGES = 16


def memory_limit(settings: Settings) -> int:
    """Bytes that one step may take: what the settings allow, else what the machine has free now."""
    if settings.memory_limit_gb is not None:
        return int(settings.memory_limit_gb * 1e9)
    return available_memory()


def block_bytes(limit: int) -> int:
    """Scratch memory of one block of products within a limit."""
    return min(BLOCK_BYTES, max(limit // 8, 2**20))


def tell_estimate(
    what: str, operations: float, size: float, device: torch.device, reporter: Reporter
) -> None:
    """One line before a long or large step; nothing before others.

    Args:
        what: The step.
        operations: Multiplications and additions of its matrix products.
        size: Bytes it takes on top of its inputs.
        device: Where it works.
        reporter: Told.
    """
    seconds = operations / _operations_per_second(device) if operations > 1e10 else 0
    if seconds >= _LONG_SECONDS or size >= _LARGE_BYTES:
        reporter.note(f"{what}: about {duration(seconds)}, {gigabytes(size)}")


def duration(seconds: float) -> str:
    """A time for people: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def stage_1_seconds(settings: Settings, images: ImageSet, devices: Sequence[torch.device]) -> float:
    """How long stage 1 will take, from the time of a few images on the first device.

    Clustering is not in it. A step counts as forward and backward pass, an extraction as a third of that.

    Args:
        settings: Of the run.
        images: Of the training split.
        devices: Where it will work.
    """
    intra, count = settings.intra, min(settings.intra.batch_size, _TIMED_IMAGES)
    model, data = settings.model, settings.data
    encoder = Encoder(model.arch, model.pooling, data.height, data.width).to(devices[0]).train()
    encoder.precision = choose_precision(settings.precision, devices[0])
    pixels = torch.zeros(count, 3, data.height, data.width, device=devices[0])
    best = float("inf")
    for _ in range(2):  # the first has to find its memory
        began = perf_counter()
        encoder(pixels).sum().backward()
        float(encoder.neck.weight.grad.sum())  # type: ignore[union-attr]  # waits for the device
        best = min(best, perf_counter() - began)
    cameras = len(np.unique(images.camids))
    trained = cameras * intra.epochs * intra.iters * intra.batch_size
    extracted = intra.epochs * len(images)
    return best / count * (trained + extracted / 3) / len(devices)


@cache
def _operations_per_second(device: torch.device) -> float:
    """Of a float32 matrix product, measured on one of the size of a block."""
    left, right = torch.ones(512, 1024, device=device), torch.ones(1024, 4096, device=device)
    best = float("inf")
    for _ in range(3):
        began = perf_counter()
        float((left @ right)[0, 0])  # waits for the device
        best = min(best, perf_counter() - began)
    return 2 * 512 * 1024 * 4096 / best
