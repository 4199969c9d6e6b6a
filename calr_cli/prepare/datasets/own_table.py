"""A user's own images, listed in a table."""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from unicodedata import normalize

from calr_cli.data.manifest import SPLITS
from calr_cli.data.tables import Problems, read_table
from calr_cli.errors import DataError
from calr_cli.prepare.datasets.layout import Listing
from calr_cli.prepare.datasets.own import own_listing

TABLE_HELP = (
    "The columns are path and, if known, camid, pid and split; paths start from the folder of the table"
)


TEST_SPLITS = {"query", "gallery"}
"""An image may be in both: it is left out of what its own query is asked."""


def list_own_table(table: Path) -> Listing:
    """List the images of a CSV, TSV or Parquet table; relative paths start from its folder.

    Raises:
        DataError: The table cannot be read, or has blanks, repetitions, unknown splits, absent files.
    """
    problems = Problems.of_table(table)
    rows: list[tuple[str, dict[str, str]]] = []
    seen: dict[str, dict[str, int]] = {}  # the line of a path in each split
    for line, row in read_table(table, ("path",), ("camid", "pid", "split"), hint=TABLE_HELP):
        written = row.pop("path")
        path, split = _as_on_disk(table.parent, written), row.get("split", "train")
        twice = [line for other, line in seen.get(path or "", {}).items() if {split, other} != TEST_SPLITS]
        if not written.strip():
            problems.add(line, "path is blank")
        elif path is None:
            problems.add(line, f"there is no file '{written}'{_maybe_not_utf8(written)}")
        elif twice:
            problems.add(line, f"path is listed twice, first in line {twice[0]}: '{written}'")
        if not row.get("camid", "?"):
            problems.add(line, "camid is blank")
        if split not in SPLITS:
            problems.add(line, f"split is none of {', '.join(SPLITS)}: '{split}'")
        if path is not None:
            seen.setdefault(path, {}).setdefault(split, line)
            rows.append((path, {column: normalize("NFC", word) for column, word in row.items()}))
    problems.raise_if_any(TABLE_HELP)
    if not rows:
        raise DataError(f"{table} lists no image", TABLE_HELP)
    return own_listing(table, rows, [])


def _as_on_disk(folder: Path, written: str) -> str | None:
    """The path as the file is called here: tables come from systems with other slashes and accents."""
    slashed = written.strip().replace("\\", "/")
    for spelling in (written, written.strip(), slashed, normalize("NFC", slashed), normalize("NFD", slashed)):
        if os.path.isfile(os.path.join(folder, spelling)):  # noqa: PTH113, PTH118 - no name makes it raise
            path = PurePath(spelling)
            inside = path.is_absolute() and path.is_relative_to(folder)
            return (path.relative_to(folder) if inside else path).as_posix()
    return None


def _maybe_not_utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # a byte that was no character
        return "; save the table as UTF-8"
    return ""
