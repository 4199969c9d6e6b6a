"""``local_labels.csv``: what stage 1 leaves for stage 2, one label per training image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from calr_cli.data.tables import Problems, first_names, read_table, write_table
from calr_cli.errors import DataError
from calr_cli.types import ImageSet, IntArray

COLUMNS = ("path", "camid", "local_label")

REMEDY = "Give the local_labels.csv that `calr train-intra` wrote for this dataset"


def write_local_labels(path: Path, images: ImageSet, labels: IntArray) -> None:
    """Write one row per image, in the images' order, whole or not at all.

    Args:
        path: File to write.
        images: The N training images.
        labels: (N,) local labels, from 0; they need not be unique over cameras.
    """
    assert labels.shape == (len(images),)
    write_table(path, COLUMNS, zip(images.paths, images.camids.tolist(), labels.tolist(), strict=True))


def read_local_labels(path: Path, images: ImageSet) -> IntArray:
    """Read the local labels of ``images``.

    Rows of other images are ignored, so that labels of a whole dataset serve for a part of it.

    Args:
        path: File to read.
        images: The N training images.

    Returns:
        (N,) labels in the images' order, 0..L-1, unique over cameras: one number in two cameras
        is two labels.

    Raises:
        DataError: The file cannot be read, is of another dataset, lacks images, lists one twice,
            says another camera, or has a label that is not a number.
    """
    problems = Problems(path)
    place = {image: index for index, image in enumerate(images.paths)}
    found: dict[int, int] = {}
    rows = read_table(path, COLUMNS, hint=REMEDY)
    known = {row["path"] for _, row in rows} & place.keys()
    if 2 * len(known) < len(images):
        example = f", e.g. {rows[0][1]['path']}, not {images.paths[0]}" if rows else ""
        raise DataError(
            f"{path} is of another dataset: it names {len(known)} of the {len(images)} training images"
            + example,
            REMEDY,
        )
    for line, row in rows:
        label = problems.integer(line, "local_label", row["local_label"], low=0)
        camid = problems.integer(line, "camid", row["camid"], low=0)
        index = place.get(row["path"])
        if index is None:
            continue
        if index in found:
            problems.add(line, f"path is listed twice: '{row['path']}'")
        elif camid != images.camids[index]:
            problems.add(
                line, f"camid is {camid}, the image is of camera {images.camids[index]}: '{row['path']}'"
            )
        found[index] = label
    problems.raise_if_any(REMEDY)
    if missing := [image for image in images.paths if place[image] not in found]:
        raise DataError(f"{path} has no label for {len(missing)} image(s): {first_names(missing)}", REMEDY)
    labels = np.array([found[index] for index in range(len(images))], dtype=np.int64)
    return unique_over_cameras(labels, images.camids)


def unique_over_cameras(labels: IntArray, camids: IntArray) -> IntArray:
    """(N,) labels 0..L-1 in which one number of ``labels`` in two cameras is two."""
    pairs = np.stack([camids, labels], axis=1)
    unique: IntArray = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return unique
