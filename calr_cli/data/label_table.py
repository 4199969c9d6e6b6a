"""Local labels as they stand in a file, before they are matched with images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from calr_cli.data.tables import Problems, read_table
from calr_cli.types import IntArray

COLUMNS = ("path", "camid", "local_label")

ALIASES = {"file": "path", "camera": "camid"}
"""Other names of the columns."""

REMEDY = (
    "Give a local_labels.csv, as `calr train-intra` and `calr labels import` write it, "
    "or a folder of cam<k>/pseudo_label.npy"
)


class LabelRow(NamedTuple):
    """One image and its local label.

    Attributes:
        place: Place in the file, for messages.
        name: Path of the image, here or on another machine, or its bare file name.
        camid: Camera of the image, from 0 or from 1, as the file counts.
        local_label: Label from 0; the same number in two cameras means two labels.
    """

    place: str
    name: str
    camid: int
    local_label: int


@dataclass(frozen=True)
class LabelTable:
    """All rows of a label file, or of a folder of label files."""

    path: Path
    rows: list[LabelRow]

    @property
    def names(self) -> tuple[str, ...]:
        """N names of images."""
        return tuple(row.name for row in self.rows)

    @property
    def camids(self) -> IntArray:
        """(N,) cameras, as the file counts."""
        return np.array([row.camid for row in self.rows], dtype=np.int64)

    @property
    def local_labels(self) -> IntArray:
        """(N,) labels, unique within a camera only."""
        return np.array([row.local_label for row in self.rows], dtype=np.int64)


def read_label_csv(path: Path) -> LabelTable:
    """Read a table with the columns path (or file), camid (or camera) and local_label.

    Raises:
        DataError: The file cannot be read, lacks a column, or has a value that is not a number.
    """
    rows = read_table(path, COLUMNS, hint=REMEDY, aliases=ALIASES)
    cells = ((line, row["path"], row["camid"], row["local_label"]) for line, row in rows)
    return LabelTable(path, label_rows(Problems.of_table(path), cells))


def label_rows(problems: Problems, cells: Iterable[tuple[int, str, str, str]]) -> list[LabelRow]:
    """Rows from texts (number of the line, name, camera, label) of one file.

    Raises:
        DataError: A camera or label is not a number, or an image is listed twice.
    """
    rows: list[LabelRow] = []
    seen: set[tuple[str, int]] = set()
    for line, name, camera, label in cells:
        camid = problems.integer(line, "camid", camera, low=0)
        local_label = problems.integer(line, "local_label", label, low=0)
        if (name, camid) in seen:
            problems.add(line, f"path is listed twice: {name!r}")
        seen.add((name, camid))
        rows.append(LabelRow(problems.place(line), name, camid, local_label))
    problems.raise_if_any(REMEDY)
    return rows
