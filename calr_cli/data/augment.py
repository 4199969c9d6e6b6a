"""Turns a batch of uint8 pixels into network input, with or without augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

from calr_cli.transfer import to_device
from calr_cli.types import IntArray

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_ERASING_TRIES = 100


@dataclass(frozen=True)
class PixelStatistics:
    """What is taken from pixels between 0 and 1, and what the rest is divided by, per channel (RGB)."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __str__(self) -> str:
        mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"mean {mean}, std {std}"


IMAGENET = PixelStatistics()
HALF = PixelStatistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Maps pixels to -1 to 1."""


def normalise(pixels: Tensor, statistics: PixelStatistics = IMAGENET) -> Tensor:
    """Pixels normalised per channel.

    Args:
        pixels: (B, H, W, 3) uint8.
        statistics: Mean and standard deviation.

    Returns:
        (B, 3, H, W) float32, channels last in memory.
    """
    return _normalised_rows(pixels, statistics).view(pixels.shape).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Draws:
    """The random draws for the augmentation of B images.

    Attributes:
        flipped: (B,) whether the image is mirrored.
        corners: (B, 2) row and column of the crop's corner in the padded image.
        rectangles: (B, 4) row, column, height and width of the erased rectangle; height 0: none.
    """

    flipped: npt.NDArray[np.bool_]
    corners: IntArray
    rectangles: IntArray

    def part(self, images: slice) -> Draws:
        """The draws of some of the images."""
        return Draws(self.flipped[images], self.corners[images], self.rectangles[images])


@dataclass(frozen=True)
class Augmentation:
    """Random flip, pad and crop, and erasing, independent for each image of a batch.

    Attributes:
        flip_probability: Probability of a horizontal flip.
        padding: Number of black pixels added on each side before a random crop back to size.
        erasing_probability: Probability of one erased rectangle.
        erasing_area: Smallest and largest share of the image that the rectangle covers.
        erasing_aspect_min: Smallest height / width of the rectangle; the largest is the inverse.
        statistics: By which the pixels are normalised.
    """

    flip_probability: float = 0.5
    padding: int = 10
    erasing_probability: float = 0.5
    erasing_area: tuple[float, float] = (0.02, 0.4)
    erasing_aspect_min: float = 0.3
    statistics: PixelStatistics = IMAGENET

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> Draws:
        """The draws for all ``count`` images of a batch, ``height`` x ``width``, whatever the devices."""
        flipped = rng.random(count) < self.flip_probability
        corners = rng.integers(0, 2 * self.padding + 1, size=(count, 2))
        sizes = np.zeros((count, 2), np.int64)
        waiting = np.flatnonzero(rng.random(count) < self.erasing_probability)
        for _ in range(_ERASING_TRIES):
            area = rng.uniform(*self.erasing_area, len(waiting)) * height * width
            aspect = rng.uniform(self.erasing_aspect_min, 1 / self.erasing_aspect_min, len(waiting))
            sides = np.rint(np.sqrt([area * aspect, area / aspect])).astype(np.int64).T
            fits = (sides < (height, width)).all(axis=1)
            sizes[waiting[fits]] = sides[fits]
            waiting = waiting[~fits]
            if not len(waiting):
                break
        places = rng.integers(0, (height, width) - sizes + 1)
        return Draws(flipped, corners, np.concatenate([places, sizes], axis=1))

    def apply(self, pixels: Tensor, draws: Draws) -> Tensor:
        """Augmented, normalised network input; the host does not wait for the device.

        Args:
            pixels: (B, H, W, 3) uint8.
            draws: Draws for these B images.

        Returns:
            (B, 3, H, W) float32, channels last in memory.
        """
        flat = np.concatenate([draws.flipped[:, None], draws.corners, draws.rectangles], axis=1)
        flipped, *numbers = to_device(flat, pixels.device).unbind(1)
        rows = _normalised_rows(self._crops(pixels, flipped, *numbers[:2]), self.statistics)
        # Erasing follows normalising and fills with the plain values of ImageNet's mean, whatever the
        # statistics: so do the references, TransReID-SSL among them.
        erased = _inside(pixels.shape, *numbers[2:])
        rows.lerp_(_per_pixel(IMAGENET_MEAN, pixels).expand_as(rows), erased)  # exact at 0 and at 1
        return rows.view(pixels.shape).permute(0, 3, 1, 2)

    def _crops(self, pixels: Tensor, flipped: Tensor, top: Tensor, left: Tensor) -> Tensor:
        """The crops; every row of a crop is a run of bytes in a padded image or its mirror image."""
        count, height, width, _ = pixels.shape
        margin = self.padding
        padded = pad(torch.stack([pixels, pixels.flip(2)]), (0, 0, margin, margin, margin, margin))
        padded_height, padded_width = padded.shape[2:4]
        images = flipped * count + torch.arange(count, device=pixels.device)
        lines = (images * padded_height + top)[:, None] + torch.arange(height, device=pixels.device)
        starts = lines * padded_width + left[:, None]
        runs = padded.as_strided((padded.numel() // 3 - width + 1, width * 3), (3, 1))
        return runs.index_select(0, starts.flatten()).view(pixels.shape)


def _normalised_rows(pixels: Tensor, statistics: PixelStatistics) -> Tensor:
    """(B, H, W * 3) float32 in long rows; loops over three channels would take ten times as long."""
    mean = _per_pixel([255 * value for value in statistics.mean], pixels)
    std = _per_pixel([255 * value for value in statistics.std], pixels)
    return pixels.flatten(2).float().sub_(mean).div_(std)


def _inside(shape: torch.Size, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """(B, H, W * 3) float32: 1 for a value inside its image's rectangle, else 0."""
    rows = torch.arange(shape[1], device=top.device)
    columns = torch.arange(shape[2] * 3, device=top.device) // 3
    in_rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    in_columns = ((columns >= left[:, None]) & (columns < (left + width)[:, None])).float()
    # The product of the two, but every row is copied whole.
    masks = torch.cat([torch.zeros_like(in_columns), in_columns])
    images = in_rows * shape[0] + torch.arange(shape[0], device=top.device)[:, None]
    return masks.index_select(0, images.flatten()).view(shape[0], shape[1], -1)


def _per_pixel(values: Sequence[float], pixels: Tensor) -> Tensor:
    """(W * 3,) float32: the three values for every pixel of a row, on the device of the pixels."""
    return to_device(np.tile(np.array(values, np.float32), pixels.shape[2]), pixels.device)
