"""Seconds and memory of `calr gallery assign` in a gallery of made-up features; images are not embedded here.

Run: python benchmarks/gallery.py --images 100000 --dim 2048
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, made_up, measured, table, write_json

from calr_cli.config.schema import Settings
from calr_cli.models.encoder import Encoder
from calr_cli.use.assigning import Sighting, assign
from calr_cli.use.embedding import Embedder
from calr_cli.use.gallery_file import GalleryFile, Maker, Seen, create_gallery

PICTURE = b"j" * 2000
"""A small picture takes as much."""


def fill(path: Path, images: int, identities: int, dim: int) -> float:
    """Make a gallery; how many seconds that takes."""
    data = made_up(images, identities, 6, dim, seed=1)
    began = time.perf_counter()
    create_gallery(path, Maker("key", "fp32", dim, "model.pth"))
    with GalleryFile(path, write=True) as file:
        for pid in range(identities):
            places = np.flatnonzero(data.pids == pid)
            seen = [Seen(f"{n}.jpg", str(n), str(data.camids[n]), data.features[n], PICTURE) for n in places]
            file.keep(file.new_identity(), seen)
    return time.perf_counter() - began


def assigning(path: Path, dim: int, count: int, identities: int) -> Callable[[], int]:
    data = made_up(count, identities, 6, dim, seed=2)
    embedder = Embedder(Encoder("resnet18"), Settings(), None)
    sightings = [Sighting((Seen(str(n), str(n), "", row, b""),), row) for n, row in enumerate(data.features)]

    def run() -> int:
        with GalleryFile(path) as file:
            return sum(answer.new is None for answer in assign(file, sightings, embedder, 0.5))

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    identities = max(1, options.images // 20)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.gallery"
        seconds = fill(path, options.images, identities, options.dim)
        size = path.stat().st_size
        rows: list[dict[str, Any]] = [{"step": "make it", "seconds": seconds, "file, MB": size / 1e6}]
        for count in options.queries:
            found = measured(assigning, path, options.dim, count, identities)
            memory = found.peak_bytes / 1e6
            rows.append({"step": f"assign {count}", "seconds": found.seconds, "memory, MB": memory})
    title = f"{options.images:,} images, {options.dim} dimensions ({machine()})"
    print(table(title, rows, ["step", "seconds", "memory, MB", "file, MB"]))
    write_json(options.json, {"gallery": rows})


if __name__ == "__main__":
    main()
