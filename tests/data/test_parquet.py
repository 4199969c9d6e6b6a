from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from calr_cli.data.tables import read_table
from calr_cli.errors import DataError
from calr_cli.prepare.datasets.own_table import list_own_table

COLUMNS = ("path", "camid", "pid")


def write(file: Path, /, **columns: Any) -> Path:
    parquet.write_table(pa.table(columns), file)
    return file


def test_numbers_words_and_gaps_are_as_in_a_csv(tmp_path: Path) -> None:
    nan = float("nan")
    table = write(
        tmp_path / "t.parquet",
        pid=pa.array([1.0, nan, None], pa.float64()),  # what whole numbers become where some are unknown
        path=["a.png", "b.png", "c.png"],
        camid=pa.array(["gate", "yard", "gate"]).dictionary_encode(),
        split=pa.array([None, "train", "x"]),
        embedding=[[0.5, 1.0], [], None],
        image=[{"bytes": b"\x89"}] * 3,
        content=[b"\xff"] * 3,
    )
    assert read_table(table, COLUMNS, ("split", "embedding", "content")) == [
        (1, {"path": "a.png", "camid": "gate", "pid": "1", "split": ""}),
        (2, {"path": "b.png", "camid": "yard", "pid": "", "split": "train"}),
        (3, {"path": "c.png", "camid": "gate", "pid": "", "split": "x"}),
    ]


def test_rows_go_on_over_row_groups(tmp_path: Path) -> None:
    names = [f"{n}.png" for n in range(10)]
    parquet.write_table(pa.table({"path": names}), tmp_path / "t.parquet", row_group_size=3)
    assert read_table(tmp_path / "t.parquet", ("path",)) == [
        (n, {"path": name}) for n, name in enumerate(names, start=1)
    ]


def test_problems_name_rows(tmp_path: Path) -> None:
    table = write(tmp_path / "t.parquet", path=["a.png"], camid=[None])
    with pytest.raises(DataError) as error:
        list_own_table(table)
    first, second = error.value.lines()
    assert first == f"{table}, row 1: there is no file 'a.png'"
    assert second.startswith(f"{table}, row 1: camid is blank. ")


def test_columns_that_are_missing_or_there_twice(tmp_path: Path) -> None:
    table = write(tmp_path / "t.parquet", image=["a.png"], vector=[[1]])
    with pytest.raises(DataError, match=r"has no column path in its first line; it has image"):
        read_table(table, ("path",))
    double = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["path", "path"])
    parquet.write_table(double, tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"has column path more than once"):
        read_table(table, ("path",))


@settings(max_examples=150)
@given(st.data())
def test_damage_anywhere_is_an_error(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        table = write(Path(folder) / "t.parquet", path=["a.png", "b.png"], camid=[1, 2])
        content = bytearray(table.read_bytes())
        if data.draw(st.booleans()):
            del content[data.draw(st.integers(0, len(content) - 1)) :]
        else:
            for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
                content[place] = data.draw(st.integers(0, 255))
        table.write_bytes(content)
        try:
            found = len(read_table(table, ("path",)))
        except DataError as error:
            found = len(error.lines())
        assert found <= 6


def test_files_that_are_not_parquet(tmp_path: Path) -> None:
    table = tmp_path / "t.parquet"
    with pytest.raises(DataError, match=r"t.parquet cannot be read: No such file or directory"):
        read_table(table, ("path",))
    table.write_text("path,camid\na,1\n")
    with pytest.raises(DataError, match=r"t.parquet is not a Parquet file, or it is damaged. Write it anew"):
        read_table(table, ("path",))


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = write(tmp_path / "t.parquet", path=["a"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError) as error:
        read_table(table, ("path",))
    assert error.value.lines() == [
        f"{table} is Parquet, and pyarrow, which reads it, is not installed. "
        "Install it with: pip install 'calr-cli[parquet]', or save the table as CSV"
    ]
