from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calr_cli.data.label_matching import LabelMatch, match_labels
from calr_cli.data.label_table import LabelRow, LabelTable
from calr_cli.errors import DataError

NAMES = ["train/a.jpg", "train/b.jpg", "train/c.jpg"]
CAMIDS = np.array([0, 1, 1])
RECURRING = ["c0/1.jpg", "c1/1.jpg", "c2/1.jpg"]


def table(*rows: tuple[str, int]) -> LabelTable:
    """Labels of (name, camera)."""
    return LabelTable(
        Path("l.csv"), [LabelRow(f"row {n}", name, camid, n) for n, (name, camid) in enumerate(rows)]
    )


def matched(rows: list[tuple[str, int]], names: list[str] = NAMES, camids: np.ndarray = CAMIDS) -> LabelMatch:
    return match_labels(table(*rows), names, camids)


def problems(
    rows: list[tuple[str, int]], names: list[str] = NAMES, camids: np.ndarray = CAMIDS
) -> tuple[str, ...]:
    with pytest.raises(DataError) as error:
        matched(rows, names, camids)
    return error.value.problems


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(
    ("prefix", "by"),
    [("train/", "path"), ("/data1/x/train/", "file name"), ("", "file name"), ("D:\\x\\", "file name")],
)
def test_by_path_or_file_name_and_cameras_from_0_or_1(first: int, prefix: str, by: str) -> None:
    rows = [(f"{prefix}c.jpg", 1 + first), ("query/z.jpg", 7), (f"{prefix}a.jpg", first)]
    found = matched(rows)
    assert found.rows.tolist() == [2, -1, 0]
    assert (found.by, found.first_camera) == (by, first)


def test_paths_tell_recurring_file_names_apart() -> None:
    found = matched([(name, 0) for name in reversed(RECURRING)], RECURRING, np.zeros(3, np.int64))
    assert (found.by, found.rows.tolist()) == ("path", [2, 1, 0])
    assert problems([("/x/1.jpg", 0)], RECURRING, np.zeros(3, np.int64)) == (
        "row 0: 3 images of this camera have that file name: '/x/1.jpg'",
    )


def test_cameras_tell_recurring_file_names_apart() -> None:
    camids = np.array([0, 1, 2])
    from_zero = matched([("/x/1.jpg", 2), ("/x/1.jpg", 0), ("/x/1.jpg", 1)], RECURRING, camids)
    assert (from_zero.first_camera, from_zero.rows.tolist()) == (0, [1, 2, 0])
    from_one = matched([("/x/1.jpg", 3), ("/x/1.jpg", 1), ("/x/1.jpg", 2)], RECURRING, camids)
    assert (from_one.first_camera, from_one.rows.tolist()) == (1, [1, 2, 0])


def test_what_fits_both_ways_is_not_guessed() -> None:
    # Cameras 1 and 2 of 0, 1, 2: all but the first from 0, or all but the last from 1.
    assert problems([("/x/1.jpg", 1), ("/x/1.jpg", 2)], RECURRING, np.array([0, 1, 2])) == (
        "l.csv is ambiguous: file names recur over cameras, and 2 rows fit whether its cameras count "
        "from 0 or from 1",
    )


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([("a.jpg", 0), ("b.jpg", 0)], "row 1: camid is 0, the image is of camera 1: 'b.jpg'"),
        ([("a.jpg", 1), ("b.jpg", 2), ("c.jpg", 1)], "row 2: camid is 1, the image is of camera 2: 'c.jpg'"),
        ([("a.jpg", 5)], "row 0: camid is 5, the image is of camera 0: 'a.jpg'"),
        ([("x/a.jpg", 0), ("b.jpg", 1), ("y/a.jpg", 0)], "row 2: path is listed twice: 'y/a.jpg'"),
    ],
)
def test_contradictions(rows: list[tuple[str, int]], problem: str) -> None:
    assert problems(rows) == (problem,)


def test_nothing_in_common() -> None:
    assert matched([("x.jpg", 0)]).rows.tolist() == matched([]).rows.tolist() == [-1, -1, -1]


paths = st.sampled_from(["a.jpg", "x/a.jpg", "y/a.jpg", "x/b.jpg", "z/x/b.jpg"])


@given(st.dictionaries(paths, st.integers(0, 2)), st.lists(st.tuples(paths, st.integers(0, 3)), max_size=8))
def test_a_row_goes_to_an_image_that_it_fits_or_to_none(
    images: dict[str, int], rows: list[tuple[str, int]]
) -> None:
    try:
        found = matched(rows, list(images), np.array(list(images.values()), dtype=np.int64))
    except DataError:
        return
    given = [row for row in found.rows.tolist() if row >= 0]
    assert len(given) == len(set(given))
    for (image, camid), row in zip(images.items(), found.rows.tolist(), strict=True):
        if row >= 0:
            name, camera = rows[row]
            assert camera == camid + found.first_camera
            assert name == image if found.by_path else name.rpartition("/")[2] == image.rpartition("/")[2]
