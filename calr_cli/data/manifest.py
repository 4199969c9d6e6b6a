"""Reads and writes ``manifest.csv``, the list of a prepared dataset's images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from calr_cli.data.tables import Problems, read_table, write_table
from calr_cli.errors import DataError
from calr_cli.files import calr_home
from calr_cli.types import UNKNOWN_PID, Dataset, ImageSet

SPLITS = ("train", "query", "gallery")
COLUMNS = ("split", "path", "pid", "camid", "digest")

Record = tuple[str, str, int, int, str]
"""One image: split, path, pid (``UNKNOWN_PID`` if not known), camid from 0, content digest."""

REMEDY = "Prepare the dataset again with `calr prepare-data`, it writes this file anew"


def dataset_folder(name: str) -> Path:
    """The folder of the manifest and the card of dataset ``name``; this function does not create it."""
    return calr_home() / "datasets" / name


def manifest_path(name: str) -> Path:
    """The path of the manifest of dataset ``name``, which need not exist."""
    return dataset_folder(name) / "manifest.csv"


def record_order(record: Record) -> tuple[int, str, str]:
    """Sort key: by split, then content digest, ties by path; never by name first.

    In most datasets names start with the identity, and clustering depends on the order of its images. If
    images were sorted by name, identities would leak into the labels.
    """
    split, path, _, _, digest = record
    return SPLITS.index(split), digest, path


def write_manifest(path: Path, records: Iterable[Record]) -> None:
    """Write the records, ordered by `record_order`, whole or not at all."""
    rows: list[Record] = sorted(records, key=record_order)
    write_table(path, COLUMNS, rows)


def read_manifest(path: Path, name: str, root: Path, inside_root: bool = True) -> Dataset:
    """Read the dataset ``name``, whose images lie below ``root``.

    Args:
        path: The ``manifest.csv``.
        name: Name of the dataset.
        root: Folder at which relative paths start.
        inside_root: Whether to refuse absolute paths and ``..`` (a user's own images may lie anywhere).

    Raises:
        DataError: The file cannot be read, a value is invalid, or there is no training image.
    """
    problems = Problems(path)
    seen: set[tuple[str, str]] = set()
    records: list[Record] = []
    for line, row in read_table(path, COLUMNS, hint=REMEDY):
        split, image = row["split"], row["path"]
        if split not in SPLITS:
            problems.add(line, f"split is none of {', '.join(SPLITS)}: '{split}'")
            continue
        if not image:
            problems.add(line, "path is blank")
        elif inside_root and (image.startswith("/") or ".." in image.split("/")):
            problems.add(line, f"path leads out of the dataset's folder: '{image}'")
        elif (split, image) in seen:
            problems.add(line, f"path is listed twice in split {split}: '{image}'")
        seen.add((split, image))
        pid = problems.integer(line, "pid", row["pid"], low=UNKNOWN_PID)
        camid = problems.integer(line, "camid", row["camid"], low=0)
        digest = row["digest"]
        if not digest or set(digest) - set("0123456789abcdef"):
            problems.add(line, f"digest is not a hexadecimal number: '{digest}'")
        records.append((split, image, pid, camid, digest))
    problems.raise_if_any(REMEDY)
    records.sort(key=record_order)
    dataset = Dataset(name, *(_image_set(root, [r for r in records if r[0] == split]) for split in SPLITS))
    if not len(dataset.train):
        raise DataError(f"{path} lists no training image", REMEDY)
    return dataset


def _image_set(root: Path, records: list[Record]) -> ImageSet:
    return ImageSet(
        root,
        paths=tuple(record[1] for record in records),
        pids=np.array([record[2] for record in records], dtype=np.int64),
        camids=np.array([record[3] for record in records], dtype=np.int64),
        digests=tuple(record[4] for record in records),
    )
