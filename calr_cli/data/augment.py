"""From uint8 pixels to network input, with and without augmentation, a batch at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_ERASING_TRIES = 100


def normalise(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 to float32 with ImageNet's mean and standard deviation per channel."""
    mean = torch.tensor(IMAGENET_MEAN, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=pixels.device).view(3, 1, 1)
    return (pixels.float() / 255 - mean) / std


@dataclass(frozen=True)
class Augmentation:
    """Random flip, pad and crop, and erasing, independent for each image of a batch.

    Attributes:
        flip_probability: Of a horizontal flip.
        padding: Black pixels added on each side before a random crop back to size.
        erasing_probability: Of one erased rectangle.
        erasing_area: Smallest and largest share of the image that the rectangle covers.
        erasing_aspect_min: Smallest height / width of it; the largest is its inverse.
    """

    flip_probability: float = 0.5
    padding: int = 10
    erasing_probability: float = 0.5
    erasing_area: tuple[float, float] = (0.02, 0.4)
    erasing_aspect_min: float = 0.3

    def __call__(self, pixels: Tensor, rng: np.random.Generator) -> Tensor:
        """Augmented, normalised network input.

        Args:
            pixels: (B, 3, H, W) uint8.
            rng: Source of all draws.

        Returns:
            (B, 3, H, W) float32.
        """
        count, _, height, width = pixels.shape
        flipped = torch.from_numpy(rng.random(count) < self.flip_probability).to(pixels.device)
        pixels = torch.where(flipped[:, None, None, None], pixels.flip(3), pixels)

        padded = pad(pixels, [self.padding] * 4)
        corners = rng.integers(0, 2 * self.padding + 1, size=(count, 2)).tolist()
        crops = [
            image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, corners, strict=True)
        ]
        images = normalise(torch.stack(crops))

        # Erasing follows normalising and fills with the mean's plain values, as the reference does.
        fill = torch.tensor(IMAGENET_MEAN, device=images.device).view(3, 1, 1)
        for position in np.flatnonzero(rng.random(count) < self.erasing_probability):
            if rectangle := self._rectangle(height, width, rng):
                y, x, h, w = rectangle
                images[position, :, y : y + h, x : x + w] = fill
        return images

    def _rectangle(
        self, height: int, width: int, rng: np.random.Generator
    ) -> tuple[int, int, int, int] | None:
        for _ in range(_ERASING_TRIES):
            area = rng.uniform(*self.erasing_area) * height * width
            aspect = rng.uniform(self.erasing_aspect_min, 1 / self.erasing_aspect_min)
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h < height and w < width:
                return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
        return None
