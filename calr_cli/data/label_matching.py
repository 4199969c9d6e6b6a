"""Finds the image of each row of a label table, by path or file name."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from calr_cli.data.label_table import REMEDY, LabelTable
from calr_cli.data.tables import Problems
from calr_cli.errors import DataError
from calr_cli.types import IntArray

SEPARATOR = re.compile(r"[/\\]")


@dataclass(frozen=True)
class LabelMatch:
    """The rows of a label table that belong to N images.

    Attributes:
        rows: (N,) row of each image, -1 for an image without a label.
        by_path: Whether rows were matched by whole paths; otherwise by file names.
        first_camera: Number in the table of the images' camera 0.
    """

    rows: IntArray
    by_path: bool
    first_camera: int

    @property
    def by(self) -> str:
        """What rows were matched by, in words."""
        return "path" if self.by_path else "file name"


def match_labels(
    table: LabelTable, names: Sequence[str], camids: IntArray, first_cameras: Sequence[int] = (0, 1)
) -> LabelMatch:
    """Find the row of each image.

    Rows are matched by whole paths if these match as many images as file names do, and by file names
    otherwise. The number of the first camera is the one with which more rows agree. Rows of other images are
    ignored.

    Args:
        table: The labels.
        names: N paths of images.
        camids: (N,) cameras of the images.
        first_cameras: Possible numbers of camera 0 in the table, the likeliest first.

    Raises:
        DataError: An image is listed twice, or under a camera that is not its own; several images of a camera
            have the same file name; or file names occur in several cameras so that both ways to count
            cameras fit.
    """
    by_path, key = _way_to_match(table, names)
    images: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for index, (name, camid) in enumerate(zip(names, camids.tolist(), strict=True)):
        images[key(name), camid].append(index)
    first = _first_camera(table, key, images.keys(), first_cameras)

    cameras_of = Counter(name for name, _ in images)
    only_camera = {name: camid for name, camid in images if cameras_of[name] == 1}
    problems = Problems(table.path)
    rows = np.full(len(names), -1, dtype=np.int64)
    for number, row in enumerate(table.rows):
        name = key(row.name)
        found = images.get((name, row.camid - first), [])
        if len(found) > 1:
            problem = f"{len(found)} images of this camera have that file name: {row.name!r}"
        elif found and rows[found[0]] >= 0:
            problem = f"path is listed twice: {row.name!r}"
        elif not found and name in only_camera:
            expected = only_camera[name] + first
            problem = f"camid is {row.camid}, the image is of camera {expected}: {row.name!r}"
        else:
            rows[found] = number  # of no image, where it is another dataset's or another split's
            continue
        problems.found.append(f"{row.place}: {problem}")
    problems.raise_if_any(REMEDY)
    return LabelMatch(rows, by_path, first)


def _way_to_match(table: LabelTable, names: Sequence[str]) -> tuple[bool, Callable[[str], str]]:
    """Whether whole paths are matched, and the function that gives the compared part of a path."""
    in_table = set(table.names)
    by_path = len(in_table & set(names))
    by_name = len({_file_name(name) for name in in_table} & {_file_name(name) for name in names})
    return (True, str) if by_path >= by_name else (False, _file_name)


def _file_name(path: str) -> str:
    return SEPARATOR.split(path)[-1]


def _first_camera(
    table: LabelTable,
    key: Callable[[str], str],
    images: Collection[tuple[str, int]],
    first_cameras: Sequence[int],
) -> int:
    """The number among ``first_cameras`` with which most rows match an image."""
    rows = dict.fromkeys(first_cameras, 0)
    contested = False
    for row in table.rows:
        fitting = [first for first in first_cameras if (key(row.name), row.camid - first) in images]
        contested |= len(fitting) > 1
        for first in fitting:
            rows[first] += 1
    best = max(first_cameras, key=lambda first: rows[first])
    if contested and list(rows.values()).count(rows[best]) > 1:
        raise DataError(
            f"{table.path} is ambiguous: file names recur over cameras, and {rows[best]} rows fit whether "
            "its cameras count from 0 or from 1",
            "Give labels with the images' paths: columns path,camid,local_label",
        )
    return best
