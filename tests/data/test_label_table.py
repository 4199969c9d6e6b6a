from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from calr_cli.data.label_table import LabelRow, read_label_csv
from calr_cli.errors import DataError


@pytest.mark.parametrize(
    "header", ["path,camid,local_label", "file,camera,local_label", "file,camid,local_label"]
)
def test_names_of_columns(header: str, tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text(f"{header}\na b.jpg,2,7\n")
    assert read_label_csv(path).rows == [LabelRow(f"{path}, line 2", "a b.jpg", 2, 7)]


def test_a_column_under_both_names_is_taken_under_its_own(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("file,path,camid,local_label\nx.jpg,train/x.jpg,0,1\n")
    assert read_label_csv(path).rows[0].name == "train/x.jpg"


def test_compressed(tmp_path: Path) -> None:
    path = tmp_path / "l.csv.gz"
    path.write_bytes(gzip.compress(b"file,camera,local_label\na.jpg,0,1\n"))
    assert [row.name for row in read_label_csv(path).rows] == ["a.jpg"]
    whole = path.read_bytes()
    for damaged in (
        whole[:-9],
        whole[:20],
        b"file,camera,local_label\n",
        whole[:10] + b"\xff" + whole[11:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(
            DataError, match=r"l\.csv\.gz is not a gzip file, or it is damaged or cut short\. "
        ):
            read_label_csv(path)


def test_an_image_of_another_dataset_may_not_be_listed_twice_either(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("path,camid,local_label\na.jpg,0,1\na.jpg,1,1\na.jpg,0,2\n")
    with pytest.raises(DataError) as error:
        read_label_csv(path)
    assert error.value.problems == (f"{path}, line 4: path is listed twice: 'a.jpg'",)
