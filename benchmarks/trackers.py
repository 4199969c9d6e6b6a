"""An exported model in the released trackers: their features against calr's on the same crops.

    python benchmarks/trackers.py --resume MODEL --images FOLDER

Needs an environment of its own with calr-cli[onnx], and with boxmot, ultralytics or both. Each image is one
crop: the trackers cut it out, resize it and run the exported file by their own code. Compared by cosine with
calr's features of the image resized as they resize (what the file can be blamed for) and as calr does.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from measuring import table
from PIL import Image

from calr_cli.data.images import open_image, resized
from calr_cli.events import SilentReporter
from calr_cli.types import FloatArray
from calr_cli.use.embedding import Embedder, load_embedder
from calr_cli.use.exporting import export_onnx
from calr_cli.use.image_lists import list_images
from calr_cli.use.trackers import TRACKERS, resized_there

Rows = Callable[[Path, list[np.ndarray]], list[FloatArray]]
"""Features that a tracker's own code makes with a file of whole BGR frames, one object in each."""


def boxmot_rows(file: Path, frames: list[np.ndarray]) -> list[FloatArray]:
    from boxmot.reid.backends.onnx_backend import ONNXBackend

    backend = ONNXBackend(file, torch.device("cpu"), half=False)
    boxes = [np.array([[0, 0, frame.shape[1], frame.shape[0]]], np.float32) for frame in frames]
    return [backend.get_features(box, frame)[0] for box, frame in zip(boxes, frames, strict=True)]


def ultralytics_rows(file: Path, frames: list[np.ndarray]) -> list[FloatArray]:
    from ultralytics.trackers.utils.reid import ReID

    encoder = ReID(str(file), device="cpu")
    rows = []
    for frame in frames:
        height, width = frame.shape[:2]
        box = np.array([[width / 2, height / 2, width, height]], np.float32)  # grown, it is cut at the frame
        rows.append(encoder(frame, box)[0])
    return rows


WAYS: dict[str, Rows] = {"boxmot": boxmot_rows, "ultralytics": ultralytics_rows}


def cosines(rows: FloatArray, embedder: Embedder, pixels: list[np.ndarray]) -> str:
    """Mean and lowest, with calr's features."""
    ours = np.stack([row for row in embedder.embed_images(pixels)[0] if row is not None])
    found = np.einsum("nd,nd->n", rows / np.linalg.norm(rows, axis=1, keepdims=True), ours)
    return f"{found.mean():.4f}, lowest {found.min():.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resume", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--count", type=int, default=64)
    options = parser.parse_args()
    embedder = load_embedder(options.resume, device="cpu", settings={"precision": "fp32"})
    size = embedder.settings.data.height, embedder.settings.data.width
    paths = list_images([options.images], SilentReporter())[: options.count]
    crops: list[Image.Image] = [open_image(Path(path)) for path in paths]
    there, here = ([way(crop, *size) for crop in crops] for way in (resized_there, resized))
    frames = [np.ascontiguousarray(np.asarray(crop)[..., ::-1]) for crop in crops]
    found = []
    for name, rows_of in WAYS.items():
        if find_spec(name) is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "model.onnx")
            export_onnx(embedder, [options.images], file, SilentReporter(), TRACKERS[name])
            rows = np.stack(rows_of(file, frames))
        found.append(
            {
                "tracker": f"{name} {version(name)}",
                "with calr's features, its resize": cosines(rows, embedder, there),
                "with calr's features": cosines(rows, embedder, here),
            }
        )
    print(table(f"{len(crops)} crops, input {size[0]} x {size[1]}", found, list(found[0])))


if __name__ == "__main__":
    main()
