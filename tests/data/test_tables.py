from __future__ import annotations

import csv
import gzip
import os
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from calr_cli.data.tables import Problems, read_table, write_table
from calr_cli.errors import DataError

values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10)


@given(st.lists(st.tuples(values, values), max_size=8))
@example([("a\rb", "x"), ("\r", "\n"), ('"', ","), (";", "\t")])
def test_what_is_written_is_read(rows: list[tuple[str, str]]) -> None:
    """Whatever Python's csv module makes of it: before 3.13 it left a lone carriage return bare."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        write_table(path, ("path", "word"), rows)
        found = [(row["path"], row["word"]) for _, row in read_table(path, ("path", "word"))]
    assert found == [(name, word.strip()) for name, word in rows if name.strip() or word.strip()]


def test_names_that_are_no_text_survive(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", ("path",), [("caf\udce9.jpg",)])
    assert (tmp_path / "t.csv").read_bytes() == b"path\ncaf\xe9.jpg\n"
    assert read_table(tmp_path / "t.csv", ("path",)) == [(2, {"path": "caf\udce9.jpg"})]


def test_rows_are_numbered_as_an_editor_does(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('path,word\n"a\nb",1\n\n,\nc,2\n')
    assert [line for line, _ in read_table(tmp_path / "t.csv", ("path",))] == [3, 6]


@pytest.mark.parametrize("header", ["path;word", "path\tword", "path,word", "note;path;word,other"])
def test_the_header_says_what_divides_the_cells(header: str, tmp_path: Path) -> None:
    delimiter = next(mark for mark in ";\t," if mark in header)
    row = delimiter.join(["x"] * header.split("path")[0].count(delimiter) + ["a,b", "c"])
    (tmp_path / "t.csv").write_text(f"{header}\n{row}\n".replace("a,b", '"a,b"'))
    assert read_table(tmp_path / "t.csv", ("path",)) == [(2, {"path": "a,b"})]


def test_a_pipe_is_read_as_it_comes(tmp_path: Path) -> None:
    """As the shell gives it with --csv <(...): it cannot be read twice."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("path;n\na;1\n",))
    writer.start()
    assert read_table(pipe, ("path", "n")) == [(2, {"path": "a", "n": "1"})]
    writer.join()


def test_other_names_of_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("File,path,cam\na,b,c\n")
    aliases = {"file": "path", "cam": "camid"}
    assert read_table(tmp_path / "t.csv", ("path", "camid"), aliases=aliases) == [
        (2, {"path": "b", "camid": "c"})  # the column's own name goes before
    ]


def test_compressed(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"path\na\n"))
    assert read_table(tmp_path / "t.csv.gz", ("path",)) == [(2, {"path": "a"})]
    for content in (b"path\na\n", gzip.compress(b"path\na\n")[:-9], gzip.compress(b"path\na\n")[:20] + b"??"):
        (tmp_path / "t.csv.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"t.csv.gz is not a gzip file, or it is damaged or cut short"):
            read_table(tmp_path / "t.csv.gz", ("path",))


def test_a_cell_beyond_all_measure(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path\n" + "x" * (csv.field_size_limit() + 1))
    with pytest.raises(DataError, match=r"t.csv is not a CSV text file"):
        read_table(tmp_path / "t.csv", ("path",))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "pid is not a whole number: ''"),
        ("1.0", "pid is not a whole number: '1.0'"),
        ("9" * 5000, "pid is not a whole number: "),  # more digits than Python reads
        ("-1", "pid is out of range (0 to 2147483647): -1"),
    ],
)
def test_what_is_no_number(value: str, problem: str, tmp_path: Path) -> None:
    problems = Problems(tmp_path)
    assert problems.integer(7, "pid", value, low=0) == 0
    with pytest.raises(DataError) as error:
        problems.raise_if_any("Mend it")
    (line,) = error.value.lines()
    assert line.startswith(f"{tmp_path}, line 7: {problem}")
    assert line.endswith(". Mend it")
