"""The training loop of the programs of this family, written from what they do."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
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

from calr_cli.data.augment import IMAGENET_MEAN, IMAGENET_STD
from calr_cli.types import FloatArray, IntArray


class PlainLoop:
    """The peers': images are decoded and augmented one by one, each time, in processes of a DataLoader.

    The network computes in fp32 with its channels first; the camera head is always on; the memory is
    updated image by image; the loss is fetched in every step; glibc's thresholds are its own.
    """

    def __init__(self, work: Work) -> None:
        torch.backends.cudnn.benchmark = True  # as theirs do
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # more than cores
        self.work = work
        self.encoder, self.classifier = prepare(work)
        self.encoder.to(memory_format=torch.contiguous_format)
        parameters = [*self.encoder.parameters(), *self.classifier.parameters()]
        self.optimiser = torch.optim.Adam(parameters, lr=LR, weight_decay=WEIGHT_DECAY)

    def extract(self, count: int) -> tuple[Timing, FloatArray]:
        """Features of the first ``count`` images."""
        work, features = self.work, []
        dataset = _DecodedImages(work, np.zeros(len(work.images), np.int64), _test_transform(work))
        began = time.perf_counter()
        loader = self._loader(dataset, sampler=range(count), batch_size=work.batch_size)
        batches = Watched(loader)
        self.encoder.eval()
        with torch.no_grad():
            for images, _, _ in batches:
                features.append(self.encoder(images.to(work.device)).cpu())
        seconds = time.perf_counter() - began
        return Timing(seconds, batches.waited, count / seconds), torch.cat(features).numpy()

    def train(self, labels: IntArray, centroids: FloatArray, batches: IntArray) -> Timing:
        """Steps on ``batches`` (T, B)."""
        work, times = self.work, []
        dataset = _DecodedImages(work, labels, _training_transform(work))
        memory = torch.from_numpy(centroids.copy()).to(work.device)
        began = time.perf_counter()
        loader = self._loader(dataset, batch_sampler=batches.tolist())
        blocks = Watched(loader)
        self.encoder.train()
        for images, targets, camids in blocks:
            images, targets, camids = (values.to(work.device) for values in (images, targets, camids))
            features = self.encoder(images)
            loss = cross_entropy(features @ memory.T / TEMPERATURE, targets)
            loss = loss + CAMERA_WEIGHT * cross_entropy(self.classifier(features), camids)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            for feature, target in zip(features.detach(), targets, strict=True):
                memory[target] = MOMENTUM * memory[target] + (1 - MOMENTUM) * feature
                memory[target] /= memory[target].norm()
            loss.item()
            times.append((len(images), time.perf_counter()))
        return Timing(time.perf_counter() - began, blocks.waited, images_per_second(times))

    def _loader(self, dataset: Dataset[Any], **options: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            num_workers=self.work.workers,
            multiprocessing_context="fork",  # as in a program that was not spawned itself
            pin_memory=self.work.device.startswith("cuda"),
            **options,
        )


class _DecodedImages(Dataset[tuple[Tensor, int, int]]):
    def __init__(self, work: Work, labels: IntArray, transform: Any) -> None:
        self.images, self.labels, self.transform = work.images, labels, transform

    def __getitem__(self, position: int) -> tuple[Tensor, int, int]:
        with Image.open(self.images.root / self.images.paths[position]) as image:
            pixels = self.transform(image.convert("RGB"))
        return pixels, int(self.labels[position]), int(self.images.camids[position])


def _test_transform(work: Work) -> Any:
    bicubic = transforms.InterpolationMode.BICUBIC
    normalise = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
    resize = transforms.Resize((work.height, work.width), bicubic)
    return transforms.Compose([resize, transforms.ToTensor(), normalise])


def _training_transform(work: Work) -> Any:
    resize, to_tensor, normalise = _test_transform(work).transforms
    return transforms.Compose(
        [
            resize,
            transforms.RandomHorizontalFlip(),
            transforms.Pad(10),
            transforms.RandomCrop((work.height, work.width)),
            to_tensor,
            normalise,
            transforms.RandomErasing(scale=(0.02, 0.4), value=IMAGENET_MEAN),
        ]
    )
