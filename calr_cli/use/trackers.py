"""What trackers put into a network, as the model file has to take it, and what to type there."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image

from calr_cli.data.augment import IMAGENET_MEAN, IMAGENET_STD
from calr_cli.data.loaders import UInt8Array
from calr_cli.types import FloatArray

BYTES = ((0.0,) * 3, (1 / 255,) * 3)
"""Mean and standard deviation by which numbers from 0 to 255 are pixels from 0 to 1, normalised."""

UNIT = ((0.0,) * 3, (1.0,) * 3)
"""Likewise for pixels from 0 to 1, which are left as they are."""


@dataclass(frozen=True)
class Tracker:
    """A program that runs the network on its own crops.

    Attributes:
        name: Value of ``--for``.
        mean: Of the normalisation outside the file, for RGB from 0 to 1; see `Tracker.feed`.
        std: Likewise.
        takes: The input, in words.
        how: Lines that say what to type there, of the file, height, width, dimensions, and the similarity
            from which on two images are more likely the same than not (None: not known).
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    takes: str
    how: Callable[[Path, int, int, int, float | None], list[str]]

    def feed(self, pixels: UInt8Array) -> FloatArray:
        """What the program makes of resized crops (N, H, W, 3), RGB: (N, 3, H, W) float32."""
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        shown = (pixels.astype(np.float32) / 255 - mean) / std
        return np.ascontiguousarray(shown.transpose(0, 3, 1, 2))


def resized_there(image: Image.Image, height: int, width: int) -> UInt8Array:
    """A crop as boxmot and ultralytics resize it: bilinear between four pixels, however many there are.

    cv2's INTER_LINEAR and torch's ``interpolate`` without antialiasing are this to one step of 255.

    Args:
        image: RGB.
        height: Wanted, pixels.
        width: Likewise.

    Returns:
        (height, width, 3) uint8.
    """
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    found = torch.nn.functional.interpolate(pixels, (height, width), mode="bilinear", align_corners=False)
    rows: UInt8Array = found[0].permute(1, 2, 0).round().to(torch.uint8).numpy()
    return rows


def _boxmot(file: Path, height: int, width: int, dim: int, threshold: float | None) -> list[str]:
    lines = [
        f"boxmot track --tracker botsort --reid {shlex.quote(str(file))} --source VIDEO",
        f"in Python: BotSort(reid_weights=Path({str(file)!r}), device='cpu', half=False)",
    ]
    if threshold is not None:  # boxmot compares 1 - similarity
        lines.append(f"appearance_thresh: {1 - threshold:.2f} (BoT-SORT), where this model is at even odds")
    return lines


def _ultralytics(file: Path, height: int, width: int, dim: int, threshold: float | None) -> list[str]:
    lines = [
        f"in a copy of botsort.yaml: with_reid: True and model: {file}",
        "yolo track model=yolo11n.pt source=VIDEO tracker=COPY.yaml",
    ]
    if threshold is not None:  # there, half of 1 - similarity may be at most 1 - appearance_thresh
        lines.append(f"appearance_thresh: {(1 + threshold) / 2:.2f}, where this model is at even odds")
    return lines


def _deepstream(file: Path, height: int, width: int, dim: int, threshold: float | None) -> list[str]:
    return [
        "in the ReID section of the tracker's configuration:",
        f"onnxFile: {file}",
        f"inferDims: [3, {height}, {width}]",
        f"reidFeatureSize: {dim}",
        "inputOrder: 0, colorFormat: 0, netScaleFactor: 1.0, offsets: [0.0, 0.0, 0.0]",
        "addFeatureNormalization: 0, keepAspc: 0",
    ]


TRACKERS = MappingProxyType(
    {
        tracker.name: tracker
        for tracker in (
            Tracker(
                "boxmot",
                IMAGENET_MEAN,
                IMAGENET_STD,
                "RGB from 0 to 1, less ImageNet's mean, over its standard deviation",
                _boxmot,
            ),
            Tracker("ultralytics", *UNIT, "RGB from 0 to 1", _ultralytics),
            Tracker("deepstream", *BYTES, "RGB from 0 to 255", _deepstream),
        )
    }
)
