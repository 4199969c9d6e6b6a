"""By which statistics pixels were normalised when a network was trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from calr_cli.data.augment import HALF, IMAGENET, PixelStatistics
from calr_cli.models.vit import VITS
from calr_cli.models.vit_files import grid_in


def statistics_of(
    content: Mapping[str, Any], state: Mapping[str, Tensor], arch: str, tensors: Mapping[str, Tensor]
) -> PixelStatistics:
    """What a file says of itself, else what is usual for its network.

    Vision transformers that were pretrained on images of persons take 0.5. Those of ImageNet, whose input is
    square, mostly take ImageNet's own.

    Args:
        content: What is in the file, for the card of calr.
        state: Its tensors by their own names, for the statistics of fast-reid (of pixels from 0 to 255).
        arch: Its architecture.
        tensors: Its tensors under the names of `Encoder`.
    """
    card = content.get("card")
    if isinstance(card, Mapping) and "mean" in card and "std" in card:
        return PixelStatistics(card["mean"], card["std"])
    usual = np.array([IMAGENET.mean, IMAGENET.std])
    if "pixel_mean" in state and "pixel_std" in state:
        found = [(state[key].double() / 255).flatten().tolist() for key in ("pixel_mean", "pixel_std")]
        if [len(values) for values in found] == [3, 3] and not np.allclose(found, usual, atol=2e-4):
            return PixelStatistics(tuple(found[0]), tuple(found[1]))
    if arch in VITS:
        grid = grid_in(tensors)
        return IMAGENET if grid is not None and grid[0] == grid[1] else HALF
    return IMAGENET


def unusual(statistics: PixelStatistics, arch: str) -> bool:
    """Whether the statistics of a network do not go without saying."""
    return arch in VITS or statistics != IMAGENET
