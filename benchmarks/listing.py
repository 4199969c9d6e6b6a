"""Own images: how long listing and manifest take, and apart from them reading, hashing and decoding.

python benchmarks/listing.py --images 200000

Made-up JPEGs of 64 x 128 in one folder per camera, in the page cache since they were just written.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from measuring import machine, table, write_json
from PIL import Image

from calr_cli.data.manifest import manifest_path, read_manifest, write_manifest
from calr_cli.data.tables import write_table
from calr_cli.events import SilentReporter
from calr_cli.prepare.datasets.own import list_own_images
from calr_cli.prepare.datasets.own_table import list_own_table
from calr_cli.prepare.inspection import inspect_images
from calr_cli.prepare.own_images import prepare_own_images

T = TypeVar("T")

CAMERAS = 20
IMAGES_PER_IDENTITY = 25
PATTERN = r"^camera (?P<camid>\d+)/(?P<pid>\d+)_"


def make_images(folder: Path, count: int) -> None:
    """Files of different content, without encoding each: what follows the end of a JPEG is not read."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((64, 128)).save(buffer, "JPEG")
    for camera in range(CAMERAS):
        (folder / f"camera {camera}").mkdir(parents=True)
    for n in range(count):
        path = folder / f"camera {n % CAMERAS}" / f"{n // IMAGES_PER_IDENTITY:06d}_{n:07d}.jpg"
        path.write_bytes(buffer.getvalue() + n.to_bytes(8))


def timed(rows: list[dict[str, Any]], step: str, work: Callable[[], T]) -> T:
    began, cpu = time.perf_counter(), time.process_time()
    result = work()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    rows.append({"step": step, "seconds": seconds, "CPU seconds": cpu})
    return result


def measure(folder: Path, count: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    reporter = SilentReporter()
    listing = timed(rows, "folder listed, names taken apart", lambda: list_own_images(folder, PATTERN))
    assert len(listing.entries) == count
    lines = [(entry.path, entry.camid, entry.pid) for entry in listing.entries]
    write_table(folder / "table.csv", ("path", "camid", "pid"), lines)
    assert len(timed(rows, "CSV listed", lambda: list_own_table(folder / "table.csv")).entries) == count
    records = [(e.split, e.path, e.pid, e.camid, f"{n:032x}") for n, e in enumerate(listing.entries)]
    manifest = folder / "manifest.csv"
    timed(rows, "manifest written", lambda: write_manifest(manifest, records))
    timed(rows, "manifest read", lambda: read_manifest(manifest, "listing", folder))
    paths = [folder / entry.path for entry in listing.entries]
    timed(rows, "apart: images read, hashed, decoded", lambda: inspect_images(paths, "", reporter))

    def prepare() -> None:
        prepare_own_images(folder, "listing", PATTERN, None, 1, reporter)

    timed(rows, "calr prepare-data, all of the above", prepare)
    timed(rows, "calr prepare-data again, nothing changed", prepare)
    assert manifest_path("listing").is_file()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="where to write them for a while; default: the system's")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        os.environ["CALR_HOME"] = f"{folder}/home"
        make_images(Path(folder) / "images", options.images)
        rows = measure(Path(folder) / "images", options.images)
    print(table(f"{options.images:,} images ({machine()})", rows, ["step", "seconds", "CPU seconds"]))
    write_json(options.json, {"images": options.images, "listing": rows})


if __name__ == "__main__":
    main()
