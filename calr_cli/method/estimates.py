"""How much memory and time a step will take, told before it begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from time import perf_counter

import numpy as np
import torch

from calr_cli.allocation import available_memory, gigabytes
from calr_cli.config.schema import Settings
from calr_cli.distances.knn import BLOCK_BYTES
from calr_cli.events import Progress, Reporter, SilentReporter
from calr_cli.models.encoder import Encoder
from calr_cli.training.precision import choose_precision
from calr_cli.types import ImageSet

_LONG_SECONDS = 5
_LARGE_BYTES = 10**9
_TIMED_IMAGES = 16
_TIMED_BATCHES = 10
_TIMED_SECONDS = 20

SMALLER = ("mobilenet_v2", "resnet18")
"""The networks that a CPU trains in the least time."""


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


def training_seconds(
    settings: Settings,
    images: ImageSet,
    devices: Sequence[torch.device],
    stages: Sequence[str] = ("intra", "inter"),
    arch: str | None = None,
) -> float:
    """How long training will take, from the time of a few images on the first device; without clustering.

    Args:
        settings: Of the run.
        images: Of the training split.
        devices: Where it will work.
        stages: Those that are meant.
        arch: A network to be taken in place of that of the settings.
    """
    model, data = settings.model, settings.data
    count = min(settings.inter.batch_size, _TIMED_IMAGES)
    pooling = model.pooling if arch is None else "gem"  # that of a vision transformer fits no other network
    encoder = Encoder(arch or model.arch, pooling, data.height, data.width).to(devices[0]).train()
    encoder.precision = choose_precision(settings.precision, devices[0])
    pixels = torch.zeros(count, 3, data.height, data.width, device=devices[0])
    best = float("inf")
    for _ in range(2):  # the first has to find its memory
        began = perf_counter()
        encoder(pixels).sum().backward()
        float(encoder.neck.weight.grad.sum())  # type: ignore[union-attr]  # waits for the device
        best = min(best, perf_counter() - began)
    cameras = len(np.unique(images.camids))
    steps = sum(stage_steps(settings, stage, cameras, len(images)) for stage in stages)
    return best / count * steps / len(devices)


def stage_steps(settings: Settings, stage: str, cameras: int, images: int) -> float:
    """The images that a stage trains on, one counted as often as it is seen; an extraction is a third."""
    if stage == "intra":
        intra = settings.intra
        return intra.epochs * (cameras * intra.iters * intra.batch_size + images / 3)
    inter = settings.inter
    return inter.epochs * (inter.iters * inter.batch_size + images / 3)


def smaller_networks(settings: Settings, images: ImageSet, devices: Sequence[torch.device]) -> str | None:
    """One line about networks that a CPU trains sooner; None on a GPU, or if the settings have one of them.

    Args:
        settings: Of the run.
        images: Of the training split.
        devices: Where it would work.
    """
    arch = settings.model.arch
    if arch in SMALLER or any(device.type != "cpu" for device in devices):
        return None

    def time(smaller: str | None = None) -> str:
        return duration(training_seconds(settings, images, devices, arch=smaller))

    others = ", ".join(f"-a {name} {time(name)}" for name in SMALLER)
    return (
        f"on this CPU both stages would take about {time()} with {arch}; smaller networks take less: "
        f"{others}. Their weights: calr fetch-pretrained -a {SMALLER[0]}"
    )


class Paced(SilentReporter):
    """Shows the progress of a training, and says once how long all of it takes, from its first batches.

    Args:
        reporter: Shows the progress.
        tell: Given the seconds of a batch and how many batches were timed.
    """

    def __init__(self, reporter: Reporter, tell: Callable[[float, int], None]) -> None:
        self._reporter, self._tell = reporter, tell

    @contextmanager
    def progress(self, title: str, total: int, unit: str = "", done: int = 0) -> Iterator[Progress]:
        """See `Reporter.progress`."""
        with self._reporter.progress(title, total, unit, done) as progress:
            pace = _Pace(progress, self._tell)
            yield pace
            pace.end()


class _Pace:
    """A progress that is timed from its first step to when enough is known."""

    def __init__(self, progress: Progress, tell: Callable[[float, int], None]) -> None:
        self._progress, self._tell = progress, tell
        self._began: float | None = None
        self._count, self._told = 0, False

    def advance(self, count: int = 1, **figures: float) -> None:
        """See `Progress.advance`."""
        self._progress.advance(count, **figures)
        if self._told:
            return
        if self._began is None:  # the first batches wait for memory, threads and the fastest algorithm
            self._began = perf_counter()
            return
        self._count += count
        if self._count >= _TIMED_BATCHES or perf_counter() - self._began > _TIMED_SECONDS:
            self.end()

    def end(self) -> None:
        """Tell what is known by now."""
        if self._count and self._began is not None and not self._told:
            self._told = True
            self._tell((perf_counter() - self._began) / self._count, self._count)


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
