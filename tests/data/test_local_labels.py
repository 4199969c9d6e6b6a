from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calr_cli.data.label_table import REMEDY
from calr_cli.data.local_labels import read_local_labels, write_local_labels
from calr_cli.errors import DataError
from calr_cli.types import ImageSet
from tests.support.released import write_released

HEADER = "path,camid,local_label\n"


def image_set(camids: list[int]) -> ImageSet:
    names = tuple(f"train/{n}.jpg" for n in range(len(camids)))
    cameras = np.array(camids, dtype=np.int64)
    return ImageSet(Path("/images"), names, np.zeros_like(cameras), cameras, names)


def test_same_number_in_two_cameras_is_two_labels(tmp_path: Path) -> None:
    images = image_set([0, 0, 1, 1, 0])
    write_local_labels(tmp_path / "l.csv", images, np.array([5, 2, 5, 5, 5]))
    assert (tmp_path / "l.csv").read_text() == HEADER + (
        "train/0.jpg,0,5\ntrain/1.jpg,0,2\ntrain/2.jpg,1,5\ntrain/3.jpg,1,5\ntrain/4.jpg,0,5\n"
    )
    labels = read_local_labels(tmp_path / "l.csv", images)
    assert labels.dtype == np.int64
    assert labels.tolist() == [1, 0, 2, 2, 1]


@settings(deadline=None)  # the disk may be busy
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=30), st.randoms())
def test_round_trip(pairs: list[tuple[int, int]], random) -> None:
    """Same (camera, label) or not is all that matters, in whatever order the rows stand."""
    images = image_set([camid for camid, _ in pairs])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "l.csv"
        write_local_labels(path, images, np.array([label for _, label in pairs]))
        header, *lines = path.read_text().splitlines()
        random.shuffle(lines)
        path.write_text("\n".join([header, *lines, "train/another.jpg,0,3"]))
        labels = read_local_labels(path, images).tolist()
    assert sorted(set(labels)) == list(range(len(set(pairs))))
    assert len(set(zip(labels, pairs, strict=True))) == len(set(pairs))


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (["train/0.jpg,0,a", "train/1.jpg,0,1"], "{path}, line 2: local_label is not a whole number: 'a'"),
        (
            ["train/0.jpg,0,1.0", "train/1.jpg,0,1"],
            "{path}, line 2: local_label is not a whole number: '1.0'",
        ),
        (
            ["train/0.jpg,0,-1", "train/1.jpg,0,1"],
            "{path}, line 2: local_label is out of range (0 to 2147483647): -1",
        ),
        (["train/0.jpg,x,1", "train/1.jpg,0,1"], "{path}, line 2: camid is not a whole number: 'x'"),
        (
            ["train/0.jpg,0,1", "train/1.jpg,1,1"],
            "{path}, line 3: camid is 1, the image is of camera 0: 'train/1.jpg'",
        ),
        (["train/0.jpg,0,1"] * 2, "{path}, line 3: path is listed twice: 'train/0.jpg'"),
        (
            ["train/0.jpg,0,1"],
            "{path} has no label for 1 of the 2 training images, of camera 0: train/1.jpg",
        ),
        (
            ["q/8.jpg,0,1", "q/9.jpg,0,2"],
            "{path} is of another dataset: it names none of the 2 training images, "
            "e.g. 'q/8.jpg', not 'train/0.jpg'",
        ),
        ([], "{path} is of another dataset: it names none of the 2 training images"),
        (["train/0.jpg,0"], "{path}, line 2: 2 cells, the header has 3"),
    ],
)
def test_nonsense_is_named(rows: list[str], problem: str, tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    with pytest.raises(DataError) as error:
        read_local_labels(path, image_set([0, 0]))
    assert error.value.lines() == [f"{problem.replace('{path}', str(path))}. {REMEDY}"]


def test_missing_images_are_counted_and_the_first_named(tmp_path: Path) -> None:
    write_local_labels(tmp_path / "l.csv", image_set([0] * 12), np.zeros(12, np.int64))
    with pytest.raises(DataError) as error:
        read_local_labels(tmp_path / "l.csv", image_set([0] * 12 + [2, 0, 4] * 3))
    names = ", ".join(f"train/{n}.jpg" for n in range(12, 17))
    assert error.value.problems == (
        f"{tmp_path}/l.csv has no label for 9 of the 21 training images, "
        f"of camera 0, 2, 4: {names} and 4 more",
    )


@pytest.mark.parametrize("from_one", [True, False])
def test_the_released_form_is_matched_by_file_name(from_one: bool, tmp_path: Path) -> None:
    images = image_set([0, 0, 1, 1, 0])
    rows = zip(images.paths, images.camids.tolist(), [5, 2, 5, 5, 5], strict=True)
    more = [("train/of-the-whole-dataset.jpg", 0, 5)]
    write_released(tmp_path, [*rows, *more], from_one)
    assert read_local_labels(tmp_path, images).tolist() == [1, 0, 2, 2, 1]
    (tmp_path / f"cam{1 + from_one}" / "pseudo_label.npy").unlink()
    with pytest.raises(DataError, match=r"has no label for 2 of the 5 training images, of camera 1: train/2"):
        read_local_labels(tmp_path, images)


@pytest.mark.parametrize("content", [b"", b"\x80\x02}q\x00", b"name,camera,local_label\na,0,1\n"])
def test_files_that_are_no_labels(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"l.csv has no column path"):
        read_local_labels(path, image_set([0]))
    with pytest.raises(DataError, match=r"x.csv cannot be read: No such file"):
        read_local_labels(tmp_path / "x.csv", image_set([0]))
    with pytest.raises(DataError, match=r"holds no cam<k>/pseudo_label.npy"):
        read_local_labels(tmp_path, image_set([0]))


@settings(deadline=None)  # the disk may be busy
@given(st.binary(max_size=200))
def test_any_bytes_are_a_data_error(content: bytes) -> None:
    """Whatever is in the file, the user gets lines, not a stack trace."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "l.csv"
        path.write_bytes(HEADER.encode() + content)
        with pytest.raises(DataError):
            read_local_labels(path, image_set([0, 0]))
