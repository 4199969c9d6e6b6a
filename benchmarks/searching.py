"""Exact search in a file of features, block by block, against FAISS's flat index with the file in memory.

Run: python benchmarks/searching.py --vectors 1000000 --dim 256
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from measuring import machine, measured, table, write_json

from calr_cli.distances.search import BLOCK_BYTES, nearest
from calr_cli.use.feature_files import open_features

ROWS = 50_000
TOP = 10


def unit_rows(count: int, dim: int, seed: int) -> np.ndarray:
    rows: np.ndarray = np.random.default_rng(seed).standard_normal((count, dim), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def write_file(path: Path, count: int, dim: int) -> None:
    """As `write_features` writes it, but without having all rows at once."""
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("paths.npy", "w") as member:
            np.lib.format.write_array(member, np.array([f"{n:08d}.jpg" for n in range(count)]))
        with archive.open("features.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": (count, dim)}
            np.lib.format.write_array_header_1_0(member, header)
            for first in range(0, count, ROWS):
                member.write(unit_rows(min(ROWS, count - first), dim, first).tobytes())


def by_blocks(path: Path, queries: int, dim: int) -> Callable[[], Any]:
    wanted = unit_rows(queries, dim, seed=-1 % 2**32)

    def run() -> Any:
        file = open_features(path)
        blocks = file.blocks(BLOCK_BYTES // (4 * dim))
        return nearest(wanted, blocks, TOP, block_bytes=BLOCK_BYTES).indices

    return run


def by_flat_index(path: Path, queries: int, dim: int) -> Callable[[], Any]:
    wanted = unit_rows(queries, dim, seed=-1 % 2**32)

    def run() -> Any:
        with np.load(path) as arrays:
            rows = arrays["features"]
        index = faiss.IndexFlatIP(dim)
        index.add(rows)
        del rows
        return index.search(wanted, TOP)[1]

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where to write them for a while; default: the system's")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    size = (options.queries, options.dim)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "features.npz"
        write_file(path, options.vectors, options.dim)
        steps = {
            "calr, by blocks": measured(by_blocks, path, *size),
            "FAISS IndexFlatIP, all in memory": measured(by_flat_index, path, *size),
        }
    ours, theirs = (step.value for step in steps.values())
    same = float(np.mean(ours == theirs))
    assert same > 0.999, same  # equals to the last digit may change places
    rows = [
        {"step": name, "seconds": step.seconds, "peak GB": step.peak_bytes / 1e9}
        for name, step in steps.items()
    ]
    title = f"{options.queries} queries, {options.vectors:,} vectors of {options.dim} ({machine()})"
    print(table(title, rows, ["step", "seconds", "peak GB"]))
    write_json(options.json, {"vectors": options.vectors, "searching": rows})


if __name__ == "__main__":
    main()
