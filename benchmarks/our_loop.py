"""Our training loop, through the pieces that the stages are made of."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import torch
from torch import Tensor
from training_loops import (
    CAMERA_WEIGHT,
    LR,
    MOMENTUM,
    TEMPERATURE,
    WEIGHT_DECAY,
    Timing,
    Watched,
    Work,
    images_per_second,
    prepare,
)

from calr_cli.allocation import keep_freed_memory
from calr_cli.clustering.centroids import cluster_centroids
from calr_cli.config.schema import Settings
from calr_cli.data.augment import Augmentation
from calr_cli.data.loaders import PixelSource
from calr_cli.data.store import open_pixels
from calr_cli.events import SilentReporter
from calr_cli.extraction import extract_features
from calr_cli.method.inter import label_epoch
from calr_cli.training.cluster_contrast import ClusterContrast
from calr_cli.training.epoch import train_epoch
from calr_cli.training.networks import Networks
from calr_cli.training.objective import CameraAlignment, Objective
from calr_cli.training.optim import build_optimiser
from calr_cli.training.precision import has_bf16
from calr_cli.training.reproducibility import keyed_rng
from calr_cli.training.step import Batching
from calr_cli.types import FloatArray, IntArray

GROUP_SIZE = 64


class OurLoop:
    """Ours; the camera head is on in every step, to be the same work."""

    def __init__(self, work: Work, precision: str) -> None:
        keep_freed_memory()
        torch.backends.cudnn.benchmark = True  # as `method.processes.prepared` does
        self.work = work
        self.encoder, self.classifier = prepare(work)
        self.encoder.precision = torch.bfloat16 if precision == "bf16" else torch.float32
        parameters = [*self.encoder.parameters(), *self.classifier.parameters()]
        self.optimiser = build_optimiser(parameters, lr=LR, weight_decay=WEIGHT_DECAY)
        self.pixels: _WatchedPixels | None = None

    def decode(self) -> float:
        """Seconds of making the store of decoded images, which is done once for all runs."""
        began = time.perf_counter()
        opened = open_pixels(
            self.work.images,
            height=self.work.height,
            width=self.work.width,
            workers=self.work.workers,
            cache="disk",
            reporter=SilentReporter(),
        )
        self.pixels = _WatchedPixels(opened)
        return time.perf_counter() - began

    def extract(self, count: int) -> tuple[Timing, FloatArray]:
        """Features of the first ``count`` images."""
        assert self.pixels is not None
        pixels = _WatchedPixels(self.pixels.subset(np.arange(count)))
        began = time.perf_counter()
        features = extract_features(
            self.encoder, pixels, batch_size=self.work.batch_size, reporter=SilentReporter()
        )
        seconds = time.perf_counter() - began
        return Timing(seconds, pixels.waited, count / seconds), features

    def train(self, labels: IntArray, centroids: FloatArray, batches: IntArray) -> Timing:
        """Steps on ``batches`` (T, B)."""
        assert self.pixels is not None
        camids, rows = self.work.images.camids, torch.from_numpy(centroids).to(self.work.device)
        memory = ClusterContrast(TEMPERATURE, MOMENTUM)(rows, labels, camids)
        alignment = CameraAlignment(self.classifier, CAMERA_WEIGHT, "logits")
        times = _Times(batches.shape[1])
        waited = self.pixels.waited
        began = time.perf_counter()
        train_epoch(
            Networks(self.encoder, self.optimiser, self.classifier),
            Objective([memory], labels, camids, alignment=alignment),
            self.pixels,
            batches,
            Batching(Augmentation(), partial(keyed_rng, 0), GROUP_SIZE),
            title="benchmark",
            reporter=times,
        )
        return Timing(time.perf_counter() - began, self.pixels.waited - waited, images_per_second(times.ends))

    def label(self, features: FloatArray, local_labels: IntArray) -> tuple[float, IntArray, FloatArray]:
        """Seconds, refined labels and centroids of the label step of stage 2 on ``features``."""
        device, camids = torch.device(self.work.device), self.work.images.camids
        began = time.perf_counter()
        labels = label_epoch(Settings(), features, camids, local_labels, 0, device, SilentReporter())
        centroids = cluster_centroids(features, labels.refined_labels)
        return time.perf_counter() - began, labels.refined_labels, centroids

    def peak(self) -> tuple[float, str]:
        """Operations per second of a large matrix product on the device, and its type."""
        device = torch.device(self.work.device)
        kind = torch.bfloat16 if has_bf16(device) else torch.float32
        size = 8192 if device.type == "cuda" else 2048
        a, b = (torch.randn(size, size).to(device, kind) for _ in range(2))
        seconds = []
        for _ in range(20):
            began = time.perf_counter()
            product = a @ b
            product[0, 0].item()  # a GPU has then finished
            seconds.append(time.perf_counter() - began)
        return 2 * size**3 / min(seconds), str(kind).removeprefix("torch.")


class _WatchedPixels:
    """A `PixelSource` that counts the seconds spent waiting for it."""

    def __init__(self, pixels: PixelSource) -> None:
        self.pixels, self.waited = pixels, 0.0
        self.height, self.width = pixels.height, pixels.width

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, positions: Iterable[IntArray], *, pin: bool = False) -> Iterator[Tensor]:
        watched = Watched(self.pixels.batches(positions, pin=pin))
        for block in watched:
            self.waited, watched.waited = self.waited + watched.waited, 0.0
            yield block

    def subset(self, indices: IntArray) -> PixelSource:
        return self.pixels.subset(indices)


class _Times(SilentReporter):
    """Notes when each of the loop's looks at its losses was over: everything before it is then done."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.ends: list[tuple[int, float]] = []

    def progress(
        self, title: str, total: int, unit: str = "", done: int = 0
    ) -> AbstractContextManager[_Times]:
        return nullcontext(self)

    def advance(self, count: int = 1, **figures: float) -> None:
        if count:
            self.ends.append((count * self.batch_size, time.perf_counter()))
