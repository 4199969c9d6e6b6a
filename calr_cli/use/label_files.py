"""Files of local labels: taken over for a dataset, held against identities, held against each other."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from calr_cli.clustering.agreement import label_agreement
from calr_cli.clustering.quality import label_quality
from calr_cli.data.label_matching import match_labels
from calr_cli.data.label_table import LabelTable
from calr_cli.data.local_labels import (
    read_label_table,
    require_labels,
    unique_over_cameras,
    write_local_labels,
)
from calr_cli.data.tables import Problems
from calr_cli.errors import DataError
from calr_cli.types import Dataset, IntArray

PID = re.compile(r"(?:\A|[/\\])(\d{1,9})_[^/\\]*\Z", re.ASCII)
"""File names of all published datasets start with the identity."""


def import_labels(path: Path, dataset: Dataset, output: Path) -> dict[str, Any]:
    """Write the labels at ``path`` as ``output``, a ``local_labels.csv`` of the dataset; a summary.

    Raises:
        DataError: They cannot be read, or do not cover the training images.
    """
    images = dataset.train
    table = read_label_table(path)
    match = match_labels(table, images.paths, images.camids)
    require_labels(table, match, images)
    labels = table.local_labels[match.rows]
    write_local_labels(output, images, labels)
    per_camera = [
        {"camera": camid, "images": len(rows), "clusters": len(np.unique(labels[rows]))}
        for camid, rows in _by_camera(images.camids).items()
    ]
    return {
        "dataset": dataset.name,
        "images": len(images),
        "clusters": sum(camera["clusters"] for camera in per_camera),
        "other_rows": len(table.rows) - len(images),
        "matched_by": match.by,
        "first_camera": match.first_camera,
        "local_labels": str(output),
        "per_camera": per_camera,
    }


def score_labels(path: Path, dataset: Dataset | None) -> dict[str, Any]:
    """Hold labels against identities: of a dataset's training images, or of the file names in ``path``.

    Returns:
        ``weighted``: figures per camera, averaged by the cameras' images; ``pooled``: pair figures over
        all pairs of images of one camera; ``per_camera``; ``unlabelled``: images that have no label and
        are left out.

    Raises:
        DataError: The labels cannot be read, are of another dataset, or identities are not known.
    """
    table = read_label_table(path)
    if dataset is None:
        labels, camids, pids = table.local_labels, table.camids, _identities_in_names(table)
        unlabelled = 0
    else:
        images = dataset.train
        if not images.has_identities:
            raise DataError(
                f"The training images of {dataset.name} have no identities to score labels against",
                "Prepare them with a group or column pid",
            )
        match = match_labels(table, images.paths, images.camids)
        require_labels(table, match, images, every=False)
        on = match.rows >= 0
        labels, camids, pids = table.local_labels[match.rows[on]], images.camids[on], images.pids[on]
        unlabelled = len(images) - len(labels)
    weighted = label_quality(labels, pids, camids)
    pooled = label_quality(unique_over_cameras(labels, camids), unique_over_cameras(pids, camids))
    return {
        "labels": str(path),
        "dataset": None if dataset is None else dataset.name,
        "images": len(labels),
        "unlabelled": unlabelled,
        "weighted": asdict(weighted),
        "pooled": {name: value for name, value in asdict(pooled).items() if name.startswith("pair_")},
        "per_camera": [
            {"camera": camid, **asdict(label_quality(labels[rows], pids[rows]))}
            for camid, rows in _by_camera(camids).items()
        ],
    }


def diff_labels(first: Path, second: Path) -> dict[str, Any]:
    """Compare two label files camera by camera, on the images that both name.

    Returns:
        ``ari``: mean over cameras, weighted by their images; ``moved``: images that would have to change
        their cluster; ``only_first``, ``only_second``: images that one file does not have; ``per_camera``.

    Raises:
        DataError: One cannot be read, or they have no image in common.
    """
    tables = read_label_table(first), read_label_table(second)
    camids = tables[0].camids
    match = match_labels(tables[1], tables[0].names, camids, first_cameras=(0, 1, -1))
    both = np.flatnonzero(match.rows >= 0)
    if not len(both):
        raise DataError(f"{first} and {second} have no image in common", "Give labels of the same dataset")
    labels = tables[0].local_labels[both], tables[1].local_labels[match.rows[both]]
    per_camera = []
    for camid, rows in _by_camera(camids[both]).items():
        agreement = label_agreement(labels[0][rows], labels[1][rows])
        per_camera.append(
            {
                "camera": camid,
                "images": len(rows),
                "first_clusters": len(np.unique(labels[0][rows])),
                "second_clusters": len(np.unique(labels[1][rows])),
                "ari": agreement.ari,
                "moved": agreement.num_moved,
            }
        )
    return {
        "first": str(first),
        "second": str(second),
        "images": len(both),
        "only_first": len(camids) - len(both),
        "only_second": len(tables[1].rows) - len(both),
        "ari": sum(camera["ari"] * camera["images"] for camera in per_camera) / len(both),
        "moved": sum(camera["moved"] for camera in per_camera),
        "per_camera": per_camera,
    }


def _by_camera(camids: IntArray) -> dict[int, IntArray]:
    """Camera -> positions of its images."""
    return {int(camid): np.flatnonzero(camids == camid) for camid in np.unique(camids)}


def _identities_in_names(table: LabelTable) -> IntArray:
    """(N,) identities of the table's images, as the published datasets name their files.

    Raises:
        DataError: The table is empty, or a file name does not start with a number.
    """
    if not table.rows:
        raise DataError(f"{table.path} lists no image")
    problems = Problems(table.path)
    pids = []
    for row in table.rows:
        if found := PID.search(row.name):
            pids.append(int(found[1]))
        else:
            problems.found.append(f"{row.place}: no identity at the start of the file name: {row.name!r}")
    problems.raise_if_any("Give the dataset that knows the identities: -d NAME")
    return np.array(pids, dtype=np.int64)
