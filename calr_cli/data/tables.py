"""Reads CSV, TSV and Parquet tables, and reports each problem in one line."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType

from calr_cli.data.parquet import PARQUET, read_parquet
from calr_cli.errors import DataError
from calr_cli.files import atomic_write

MAX_INTEGER = 2**31 - 1
"""Largest pid, camera or label a table may hold."""

SHOWN = 5
"""Number of problems or names that are shown; the rest is only counted."""


def first_names(names: Sequence[str]) -> str:
    """The first few names in one line, and the number of further names."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


class Problems:
    """Collects the problems of one file and raises them all at once."""

    def __init__(self, path: Path, unit: str = "line") -> None:
        self.path, self.unit = path, unit
        self.found: list[str] = []

    @staticmethod
    def of_table(path: Path) -> Problems:
        """The problems of a table that `read_table` reads."""
        return Problems(path, "row" if path.suffix == PARQUET else "line")

    def place(self, line: int) -> str:
        """The name of ``line`` (from 1) in messages."""
        return f"{self.path}, {self.unit} {line}"

    def add(self, line: int, text: str) -> None:
        """Remember that ``line`` (from 1) is wrong."""
        self.found.append(f"{self.place(line)}: {text}")

    def integer(self, line: int, column: str, value: str, low: int) -> int:
        """``value`` as a number in ``low..MAX_INTEGER``; else ``low``, and the problem is remembered."""
        try:
            number = int(value)
        except ValueError:
            self.add(line, f"{column} is not a whole number: {value!r}")
            return low
        if not low <= number <= MAX_INTEGER:
            self.add(line, f"{column} is out of range ({low} to {MAX_INTEGER}): {number}")
            return low
        return number

    def raise_if_any(self, hint: str) -> None:
        """Raise if there are problems, with the first few and the number of further ones.

        Raises:
            DataError: There are problems.
        """
        if not self.found:
            return
        shown = self.found[:SHOWN]
        if more := len(self.found) - len(shown):
            shown.append(f"{self.path}: and {more} more")
        raise DataError(shown, hint)


def read_table(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    hint: str = "",
    aliases: Mapping[str, str] = MappingProxyType({}),
) -> list[tuple[int, dict[str, str]]]:
    """The rows of a table with a header, as (line number, cells by column name).

    In a text file, commas, semicolons or tabs separate the cells: the one that the header has most of. The
    text may be UTF-16 if it has a byte order mark. A file named ``.parquet`` is read as Parquet, with rows
    numbered from 1; a file named ``.gz`` is decompressed.

    Blank lines are skipped. Blanks around cells are removed, except in ``path``, because file names may have
    them. Columns may have any order, capitals, or the names that ``aliases`` maps to theirs; other columns
    are ignored.

    Raises:
        DataError: The file is missing or not a table, columns are missing, or a row differs from the header
            in length.
    """
    problems = Problems.of_table(path)
    lines = read_parquet(path) if path.suffix == PARQUET else _read_text(path)
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        _, first = next(lines, (1, []))
        header = [cell.strip().lower() for cell in first]
        header = [cell if aliases.get(cell, cell) in header else aliases[cell] for cell in header]
        if missing := [column for column in required if column not in header]:
            what = f"{path} has no column {', '.join(missing)} in its first line"
            raise DataError(what + (f"; it has {', '.join(header)}" if _is_text(header) else ""), hint)
        wanted = [column for column in (*required, *optional) if column in header]
        if repeated := [column for column in wanted if header.count(column) > 1]:
            raise DataError(f"{path} has column {repeated[0]} more than once", hint)
        places = [(column, header.index(column)) for column in wanted]
        for line, cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                problems.add(line, f"{len(cells)} cells, the header has {len(header)}")
                continue
            row = {column: cells[place] for column, place in places}
            rows.append((line, {c: v if c == "path" else v.strip() for c, v in row.items()}))
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path} is not a gzip file, or it is damaged or cut short", hint) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", hint) from error
    except (csv.Error, UnicodeError) as error:
        raise DataError(f"{path} is not a CSV text file", hint) from error
    problems.raise_if_any(hint)
    return rows


def _read_text(path: Path) -> Iterator[tuple[int, list[str]]]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        is_utf16 = file.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # Excel's "Unicode text"
        encoding = "utf-16" if is_utf16 else "utf-8-sig"
        with io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="") as text:
            first = text.readline()
            delimiter = max(",;\t", key=first.count)  # Excel writes what the country's settings say
            reader = csv.reader(chain([first], text), delimiter=delimiter, strict=True)
            for cells in reader:
                yield reader.line_num, cells


def _is_text(cells: Sequence[str]) -> bool:
    return any(cells) and all(cell.isprintable() for cell in cells)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str | int]]) -> None:
    """Write a CSV file whole or not at all."""
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        plain = csv.writer(file, lineterminator="\n")
        # Before Python 3.13 a lone carriage return is not quoted by itself.
        quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        plain.writerow(columns)
        for row in rows:
            (quoted if any("\r" in str(cell) for cell in row) else plain).writerow(row)
