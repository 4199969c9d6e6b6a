"""Size of exported models, and processor time an image by ONNX Runtime and by PyTorch on one thread.

Random weights and pixels; every row is measured in a fresh process, and features are compared in the run.
Processor time, so that whatever else the machine does counts little.

Run: python benchmarks/exporting.py
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import machine, measured, table, write_json

from calr_cli.data.augment import normalise
from calr_cli.models.batch_norm import BATCH_NORMS
from calr_cli.models.encoder import Encoder
from calr_cli.use.onnx_file import open_onnx, write_onnx

BATCHES = (1, 16)
PRECISIONS = {"PyTorch, fp32": torch.float32, "PyTorch, bf16": torch.bfloat16}


def pixels_of(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def encoder_of(arch: str) -> Encoder:
    """With statistics of random pixels: with those that it starts from, all features would be the same."""
    torch.manual_seed(0)
    encoder = Encoder(arch)
    for module in encoder.modules():
        if isinstance(module, BATCH_NORMS):
            module.momentum = 1.0
    with torch.no_grad():
        encoder(normalise(torch.from_numpy(pixels_of(4, 64, 32))))
    return encoder.eval()


def timed(embed: Callable[[np.ndarray], np.ndarray], size: tuple[int, int], images: int) -> Callable[[], Any]:
    """Milliseconds an image by size of batch, the median of the batches, and the features of the last one."""

    def run() -> tuple[dict[int, float], np.ndarray]:
        milliseconds = {}
        for batch in BATCHES:
            pixels = pixels_of(batch, *size)
            embed(pixels)  # the first call prepares
            seconds = []
            for _ in range(max(3, images // batch)):
                began = time.process_time()
                features = embed(pixels)
                seconds.append(time.process_time() - began)
            milliseconds[batch] = 1000 * float(np.median(seconds)) / batch
        return milliseconds, features

    return run


def by_pytorch(arch: str, precision: torch.dtype, size: tuple[int, int], images: int) -> Callable[[], Any]:
    encoder = encoder_of(arch)
    encoder.precision = precision

    def embed(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            features: torch.Tensor = encoder(normalise(torch.from_numpy(pixels)))
            return features.numpy()

    return timed(embed, size, images)


def by_onnxruntime(file: Path, size: tuple[int, int], images: int) -> Callable[[], Any]:
    return timed(open_onnx(file), size, images)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--arch", nargs="+", default=["mobilenet_v2", "resnet50"])
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--images", type=int, default=64, help="images per figure, about")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    size, rows = (options.height, options.width), []
    for arch in options.arch:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            write_onnx(file, encoder_of(arch), *size, {})
            megabytes = file.stat().st_size / 1e6
            steps = {
                name: measured(by_pytorch, arch, precision, size, options.images, threads=1).value
                for name, precision in PRECISIONS.items()
            }
            steps["ONNX Runtime, fp32"] = measured(
                by_onnxruntime, file, size, options.images, threads=1
            ).value
        exact = steps["PyTorch, fp32"][1]
        for name, (milliseconds, features) in steps.items():
            difference = float(np.abs(features - exact).max())
            assert difference < 1e-4 or "bf16" in name, difference
            times = {f"ms an image, batch {batch}": value for batch, value in milliseconds.items()}
            rows.append({"network": arch, "step": name, **times, "largest difference": f"{difference:.0e}"})
        rows[-1]["file, MB"] = megabytes
    title = f"{options.height} x {options.width}, one thread ({machine()})"
    print(table(title, rows, list(rows[-1])))
    write_json(options.json, {"exporting": rows})


if __name__ == "__main__":
    main()
