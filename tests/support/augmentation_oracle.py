"""The augmentation one image and one draw at a time, as the method words it."""

from __future__ import annotations

import math

import numpy as np

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


def draw_rectangle(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int] | None:
    """(row, column, height, width) of what is erased: up to 100 tries until it fits."""
    for _ in range(100):
        area = rng.uniform(0.02, 0.4) * height * width
        aspect = rng.uniform(0.3, 1 / 0.3)
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            return (
                int(rng.integers(0, height - h, endpoint=True)),
                int(rng.integers(0, width - w, endpoint=True)),
                h,
                w,
            )
    return None


def augmented(
    image: np.ndarray,
    padding: int,
    flipped: bool,
    corner: tuple[int, int],
    rectangle: tuple[int, int, int, int],
) -> np.ndarray:
    """(3, H, W) of an (H, W, 3) image: mirrored, padded with black, cropped, normalised, erased."""
    height, width, _ = image.shape
    if flipped:
        image = image[:, ::-1]
    padded = np.zeros((height + 2 * padding, width + 2 * padding, 3), np.uint8)
    padded[padding : padding + height, padding : padding + width] = image
    y, x = corner
    normalised = (padded[y : y + height, x : x + width] / 255 - MEAN) / STD
    y, x, h, w = rectangle
    normalised[y : y + h, x : x + w] = MEAN  # its plain value, though all else is normalised by now
    return normalised.transpose(2, 0, 1)
