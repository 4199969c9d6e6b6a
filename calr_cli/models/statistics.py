"""By which statistics pixels were normalised when a network was trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from calr_cli.data.augment import HALF, IMAGENET, PixelStatistics
from calr_cli.models.vit import VITS
from calr_cli.models.vit_files import grid_in

Channels = tuple[float, float, float]


def statistics_of(
    content: Mapping[str, Any], state: Mapping[str, Tensor], arch: str, tensors: Mapping[str, Tensor]
) -> PixelStatistics | None:
    """What a file says of itself, else what is usual for its network; None if what it says makes no sense.

    Vision transformers that were pretrained on images of persons take 0.5, and so do those that were trained
    to re-identify, which have a neck. Those of ImageNet, whose input is square, mostly take ImageNet's own.

    Args:
        content: What is in the file, for the card of calr.
        state: Its tensors by their own names, for the statistics of fast-reid (of pixels from 0 to 255).
        arch: Its architecture.
        tensors: Its tensors under the names of `Encoder`.
    """
    card = content.get("card")
    if isinstance(card, Mapping) and "mean" in card and "std" in card:
        return PixelStatistics(card["mean"], card["std"])
    if arch in VITS:
        grid = grid_in(tensors)
        is_square = grid is not None and grid[0] == grid[1]
        return IMAGENET if is_square and "neck.running_mean" not in tensors else HALF
    mean = _of_fast_reid(state.get("pixel_mean"), IMAGENET.mean)
    std = _of_fast_reid(state.get("pixel_std"), IMAGENET.std)
    return None if mean is None or std is None or min(std) <= 0 else PixelStatistics(mean, std)


def _of_fast_reid(values: Tensor | None, usual: Channels) -> Channels | None:
    """Three of its numbers, of pixels from 0 to 255; ``usual`` if they are that, rounded, or not there."""
    if values is None:
        return usual
    found = (values.double() / 255).flatten().tolist()
    if len(found) != 3 or not np.isfinite(found).all():
        return None
    return usual if np.allclose(found, usual, atol=2e-4) else (found[0], found[1], found[2])


def unusual(statistics: PixelStatistics, arch: str) -> bool:
    """Whether the statistics of a network do not go without saying."""
    return arch in VITS or statistics != IMAGENET
