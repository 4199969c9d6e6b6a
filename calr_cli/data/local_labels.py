"""Reads and writes ``local_labels.csv``, the labels that stage 1 hands over to stage 2."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from calr_cli.data.label_matching import LabelMatch, match_labels
from calr_cli.data.label_table import COLUMNS, REMEDY, LabelTable, read_label_csv
from calr_cli.data.official_labels import read_official_labels
from calr_cli.data.tables import first_names, write_table
from calr_cli.errors import DataError
from calr_cli.types import ImageSet, IntArray


def write_local_labels(path: Path, images: ImageSet, labels: IntArray) -> None:
    """Write one row per image, in the images' order, whole or not at all.

    Args:
        path: File to write.
        images: N training images.
        labels: (N,) local labels, from 0; two cameras may use the same numbers.
    """
    assert labels.shape == (len(images),)
    write_table(path, COLUMNS, zip(images.paths, images.camids.tolist(), labels.tolist(), strict=True))


def read_local_labels(path: Path, images: ImageSet) -> IntArray:
    """Read the local labels of ``images``: a CSV, or a folder of ``cam<k>/pseudo_label.npy``.

    Rows of other images are ignored, so labels of a whole dataset also serve a part of it.

    Args:
        path: File or folder to read.
        images: N training images.

    Returns:
        (N,) labels in the images' order, 0..L-1, unique over cameras: the same number in two
            cameras becomes two labels.

    Raises:
        DataError: The labels cannot be read, belong to another dataset, lack images, list an image twice or
            under another camera, or have a label that is not a number.
    """
    table = read_label_table(path)
    match = match_labels(table, images.paths, images.camids)
    require_labels(table, match, images)
    return unique_over_cameras(table.local_labels[match.rows], images.camids)


def read_label_table(path: Path) -> LabelTable:
    """Read whatever local labels ``path`` holds: a CSV, or a folder of ``cam<k>/pseudo_label.npy``.

    Raises:
        DataError: The labels cannot be read, or a label or camera is not a number.
    """
    return read_official_labels(path) if path.is_dir() else read_label_csv(path)


def require_labels(table: LabelTable, match: LabelMatch, images: ImageSet, every: bool = True) -> None:
    """Raise unless every image has a label; if not ``every``, raise only if no image has one.

    Raises:
        DataError: Images lack labels (says how many in which cameras), or the table is of another dataset.
    """
    unlabelled = np.flatnonzero(match.rows < 0)
    if len(unlabelled) == len(images):
        example = f", e.g. {table.rows[0].name!r}, not {images.paths[0]!r}" if table.rows else ""
        raise DataError(
            f"{table.path} is of another dataset: it names none of the {len(images)} training images"
            + example,
            REMEDY,
        )
    if every and len(unlabelled):
        cameras = ", ".join(str(camid) for camid in np.unique(images.camids[unlabelled]))
        raise DataError(
            f"{table.path} has no label for {len(unlabelled)} of the {len(images)} training images, "
            f"of camera {cameras}: {first_names([images.paths[index] for index in unlabelled])}",
            REMEDY,
        )


def unique_over_cameras(labels: IntArray, camids: IntArray) -> IntArray:
    """(N,) labels 0..L-1 in which the same number in two cameras becomes two labels."""
    pairs = np.stack([camids, labels], axis=1)
    unique: IntArray = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return unique
