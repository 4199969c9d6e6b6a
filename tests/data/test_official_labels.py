from __future__ import annotations

import csv
import gzip
import pickle
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calr_cli.data.label_table import REMEDY, LabelRow
from calr_cli.data.official_labels import read_official_labels
from calr_cli.errors import DataError
from tests.support.released import write_released

ROWS = [("train/0001_a.jpg", 0, 3), ("train/0001_b.jpg", 1, 0), ("train/0002_a.jpg", 0, 3)]


def problems(folder: Path) -> list[str]:
    with pytest.raises(DataError) as error:
        read_official_labels(folder)
    return error.value.lines()


def test_one_folder_per_camera(tmp_path: Path) -> None:
    table = read_official_labels(write_released(tmp_path, ROWS))
    first = f"{tmp_path}/cam1/pseudo_label.npy"
    assert table.path == tmp_path
    assert table.rows == [
        LabelRow(f"{first}, row 1", "/data1/another/machine/train/0001_a.jpg", 1, 3),
        LabelRow(f"{first}, row 2", "/data1/another/machine/train/0002_a.jpg", 1, 3),
        LabelRow(f"{tmp_path}/cam2/pseudo_label.npy, row 1", "/data1/another/machine/train/0001_b.jpg", 2, 0),
    ]


def test_cameras_are_in_order_and_other_files_are_passed_over(tmp_path: Path) -> None:
    write_released(tmp_path, [("x.jpg", camid, 0) for camid in (1, 9, 2)])
    (tmp_path / "cam4").mkdir()  # a camera that was not copied: coverage tells
    (tmp_path / "camera7").mkdir()
    (tmp_path / "README.md").touch()
    assert [row.camid for row in read_official_labels(tmp_path).rows] == [2, 3, 10]


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("executed"),))  # type: ignore[return-value]


def test_pickled_objects_are_refused_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "cam1" / "pseudo_label.npy"
    file.parent.mkdir()
    np.save(file, np.array([[Evil(), "0", "0"]], dtype=object), allow_pickle=True)
    line = f"{file} is no plain numpy array, or it is damaged or cut short. {REMEDY}"
    assert problems(tmp_path) == [line]
    file.write_bytes(pickle.dumps(Evil()))
    assert problems(tmp_path) == [line]
    assert not Path("executed").exists()


def test_all_damaged_files_are_named_at_once(tmp_path: Path) -> None:
    write_released(tmp_path, [("x.jpg", camid, 0) for camid in range(5)])
    files = [tmp_path / f"cam{camera}" / "pseudo_label.npy" for camera in range(1, 6)]
    files[0].write_bytes(files[0].read_bytes()[:-1])
    np.save(files[1], np.zeros((4, 3)))
    np.save(files[2], np.array([["a.jpg", "0"]]))
    np.save(files[3], np.array([["a.jpg", "one", "0"], ["a.jpg", "-1", "0"]]))
    np.save(files[4], np.array([["a.jpg", "0", "0"], ["b.jpg", "0", "1"]]))
    assert problems(tmp_path) == [
        f"{files[0]} is no plain numpy array, or it is damaged or cut short",
        f"{files[1]} is an array of shape (4, 3) and type float64, not of rows of text (path, label, camera)",
        f"{files[2]} is an array of shape (1, 2) and type <U5, not of rows of text (path, label, camera)",
        f"{files[3]}, row 1: local_label is not a whole number: 'one'",
        f"{files[3]}, row 2: local_label is out of range (0 to 2147483647): -1",
        f"{files[3]}, row 2: path is listed twice: 'a.jpg'",
        f"{files[4]} lists images of 2 cameras, a file is of one. {REMEDY}",
    ]


def test_a_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    """Its array would take 4 TB; it must not even be tried."""
    file = write_released(tmp_path, ROWS) / "cam1" / "pseudo_label.npy"
    file.write_bytes(file.read_bytes().replace(b"(2, 3), }", b"(9999999999, 3), }"))
    assert "is no plain numpy array" in problems(tmp_path)[0]


def test_no_such_folder_and_none_of_these(tmp_path: Path) -> None:
    assert problems(tmp_path) == [f"{tmp_path} holds no cam<k>/pseudo_label.npy. {REMEDY}"]
    assert problems(tmp_path / "x") == [f"{tmp_path}/x cannot be read: No such file or directory. {REMEDY}"]
    (tmp_path / "cam1" / "pseudo_label.npy").mkdir(parents=True)
    assert problems(tmp_path) == [
        f"{tmp_path}/cam1/pseudo_label.npy cannot be read: Is a directory. {REMEDY}"
    ]


@settings(max_examples=300)
@given(st.data())
def test_damage_anywhere_is_a_data_error(data: st.DataObject) -> None:
    """A valid file with bytes changed, or cut: it is read, or refused in a line, and never anything else."""
    with TemporaryDirectory() as name:
        file = write_released(Path(name), ROWS) / "cam1" / "pseudo_label.npy"
        content = bytearray(file.read_bytes())
        for place, byte in data.draw(
            st.lists(st.tuples(st.integers(0, 140), st.integers(0, 255)), max_size=4)
        ):
            content[place] = byte
        file.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
        with suppress(DataError):
            assert read_official_labels(Path(name)).rows


@settings(max_examples=100)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_data_error(content: bytes) -> None:
    with TemporaryDirectory() as name:
        (Path(name) / "cam1").mkdir()
        for start in (b"", b"\x93NUMPY\x01\x00\x76\x00"):
            (Path(name) / "cam1" / "pseudo_label.npy").write_bytes(start + content)
            with pytest.raises(DataError):
                read_official_labels(Path(name))


@pytest.mark.real
@pytest.mark.parametrize("dataset", ["market1501", "dukemtmcreid", "msmt17", "veri"])
def test_the_released_files_say_what_is_known_of_them(shared: Path, dataset: str) -> None:
    """Folders count cameras from 1 in all four; the collected tables from 0."""
    with gzip.open(shared / "official-labels" / f"{dataset}.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    known = {row["file"]: (int(row["camera"]) + 1, int(row["local_label"])) for row in rows}
    found = read_official_labels(shared / "official-labels" / "raw" / dataset).rows
    assert len(found) >= 195
    assert all(known[row.name.rpartition("/")[2]] == (row.camid, row.local_label) for row in found)
