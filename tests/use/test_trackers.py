"""Files take what trackers feed; each tracker's preprocessing is written out here once more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from calr_cli.data.augment import normalise
from calr_cli.models.encoder import Encoder
from calr_cli.types import FloatArray
from calr_cli.use.onnx_file import write_onnx
from calr_cli.use.trackers import TRACKERS, resized_there

HEIGHT, WIDTH = 48, 32

FED: dict[str, Callable[[FloatArray], FloatArray]] = {
    "boxmot": lambda rgb: (rgb / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    "ultralytics": lambda rgb: rgb / 255,
    "deepstream": lambda rgb: 1.0 * (rgb - [0.0, 0.0, 0.0]),
}


def pixels() -> np.ndarray:
    """Three images of patches."""
    patches = np.random.default_rng(0).integers(0, 256, (3, HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    return patches.repeat(8, axis=1).repeat(8, axis=2)


@pytest.mark.parametrize("name", TRACKERS)
def test_the_file_computes_the_features_from_what_the_tracker_feeds(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = Encoder("resnet_tiny").eval()
    with torch.inference_mode():
        expected = encoder(normalise(torch.from_numpy(pixels()))).numpy()
    write_onnx(tmp_path / "m.onnx", encoder, HEIGHT, WIDTH, {}, TRACKERS[name])
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.shape, given.type) == (["N", 3, HEIGHT, WIDTH], "tensor(float)")
    fed = FED[name](pixels().astype(np.float64)).transpose(0, 3, 1, 2).astype(np.float32)
    assert np.abs(TRACKERS[name].feed(pixels()) - fed).max() < 1e-4
    for batch in (fed[:1], fed):
        (rows,) = session.run(None, {given.name: batch})
        assert np.abs(rows - expected[: len(batch)]).max() < 1e-5


def test_the_resize_looks_at_four_pixels_and_smooths_nothing() -> None:
    """Of a fine checkerboard made four times smaller, one of four pixels each way is all that is seen."""
    board = np.zeros((64, 64, 3), np.uint8)
    board[1::4] = board[2::4] = 255  # the rows that a bilinear filter at the centre of four looks at
    assert (resized_there(Image.fromarray(board), 16, 16) == 255).all()
    ramp = np.repeat(np.arange(0, 240, 30, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(4, axis=0)
    twice = resized_there(Image.fromarray(ramp), 4, 16)[0, :, 0]
    assert twice.tolist() == [0, *(round(30 * (i - 0.5) / 2) for i in range(1, 15)), 210]
