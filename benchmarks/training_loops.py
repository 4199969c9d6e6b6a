"""What the two loops of the training benchmark share: the work, the weights, and how they are timed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from calr_cli.data.augment import IMAGENET
from calr_cli.models.camera_classifier import CameraClassifier
from calr_cli.models.encoder import Encoder
from calr_cli.models.vit import VITS
from calr_cli.types import ImageSet

TEMPERATURE, MOMENTUM, CAMERA_WEIGHT = 0.05, 0.1, 0.1
LR, WEIGHT_DECAY = 3.5e-4, 5e-4


@dataclass(frozen=True)
class Work:
    """What both loops are given; ``workers`` are processes there and threads here."""

    images: ImageSet
    cameras: int
    arch: str
    height: int
    width: int
    batch_size: int
    device: str
    workers: int
    threads: int | None


@dataclass(frozen=True)
class Timing:
    """Seconds of a whole call, those in which it stood waiting for pixels, and images per second.

    Training counts images from the end of its first interval on: workers have then been started.
    """

    seconds: float
    waited: float
    rate: float


def network(arch: str, height: int, width: int) -> Encoder:
    """With ImageNet's pixel statistics, which every loop takes."""
    encoder = Encoder(arch, "cls" if arch in VITS else "gem", height, width)
    encoder.statistics = IMAGENET
    return encoder


def prepare(work: Work) -> tuple[Encoder, CameraClassifier]:
    """The same weights for every loop; batch norms that fit them, without which all features are alike."""
    if work.threads is not None:
        torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    encoder = network(work.arch, work.height, work.width)
    norms = [module for module in encoder.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        encoder(torch.randn(8, 3, work.height, work.width))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    classifier = CameraClassifier(encoder.feature_dim, work.cameras)
    return encoder.to(work.device), classifier.to(work.device)


class Watched:
    """Counts the seconds spent waiting for the next item."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items, self.waited = items, 0.0

    def __iter__(self) -> Iterator[Any]:
        began = time.perf_counter()
        for item in self.items:
            self.waited += time.perf_counter() - began
            yield item
            began = time.perf_counter()


def images_per_second(ends: list[tuple[int, float]]) -> float:
    """Images per second from the first to the last of the times (images since the one before, time)."""
    if len(ends) == 1:  # a GPU's warming up
        return math.nan
    return sum(count for count, _ in ends[1:]) / (ends[-1][1] - ends[0][1])
