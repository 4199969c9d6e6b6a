"""CSV tables read with one clear line per problem."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from calr_cli.errors import DataError
from calr_cli.files import atomic_write

MAX_INTEGER = 2**31 - 1
"""Largest pid, camera or label a table may hold."""

SHOWN = 5
"""Problems, or names, shown before the rest is only counted."""


def first_names(names: Sequence[str]) -> str:
    """The first few names in one line, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


class Problems:
    """Collects what is wrong in one file and raises it all at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: list[str] = []

    def add(self, line: int, text: str) -> None:
        """Remember that ``line`` (from 1) is wrong."""
        self.found.append(f"{self.path}, line {line}: {text}")

    def integer(self, line: int, column: str, value: str, low: int) -> int:
        """``value`` as a number in ``low..MAX_INTEGER``; else ``low``, and the problem is remembered."""
        try:
            number = int(value)
        except ValueError:
            self.add(line, f"{column} is not a whole number: '{value}'")
            return low
        if not low <= number <= MAX_INTEGER:
            self.add(line, f"{column} is out of range ({low} to {MAX_INTEGER}): {number}")
            return low
        return number

    def raise_if_any(self, hint: str) -> None:
        """Raise the first few problems, and how many more there are.

        Raises:
            DataError: Something was added.
        """
        if not self.found:
            return
        shown = self.found[:SHOWN]
        if more := len(self.found) - len(shown):
            shown.append(f"{self.path}: and {more} more")
        raise DataError(shown, hint)


def read_table(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), hint: str = ""
) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with a header, as (line number, cells by column name).

    Blank lines are skipped, blanks around cells removed (but for ``path``: names may have them).
    Columns may come in any order; columns that are not asked for are ignored.

    Raises:
        DataError: No such file, not text, columns missing, or rows of another length than the header.
    """
    problems = Problems(path)
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [cell.strip() for cell in next(reader, [])]
            if missing := [column for column in required if column not in header]:
                raise DataError(f"{path} has no column {', '.join(missing)} in its first line", hint)
            wanted = [column for column in (*required, *optional) if column in header]
            if repeated := [column for column in wanted if header.count(column) > 1]:
                raise DataError(f"{path} has column {repeated[0]} more than once", hint)
            places = [(column, header.index(column)) for column in wanted]
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    problems.add(reader.line_num, f"{len(cells)} cells, the header has {len(header)}")
                    continue
                row = {column: cells[place] for column, place in places}
                rows.append((reader.line_num, {c: v if c == "path" else v.strip() for c, v in row.items()}))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", hint) from error
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV text file", hint) from error
    problems.raise_if_any(hint)
    return rows


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str | int]]) -> None:
    """Write a CSV file whole or not at all."""
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
