"""Which images a user means by files, folders and tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from calr_cli.data.manifest import manifest_path
from calr_cli.data.parquet import PARQUET
from calr_cli.data.tables import Problems, read_table
from calr_cli.errors import DataError
from calr_cli.events import Reporter
from calr_cli.prepare.card import read_card
from calr_cli.prepare.datasets.folders import find_images

TABLES = (".csv", ".tsv", ".gz", PARQUET)


def list_images(sources: Sequence[str], reporter: Reporter) -> list[str]:
    """Paths of images, in the order of the sources and without repetition.

    A folder means all images below it, sorted by path; a table its column ``path``, from the table's
    folder, or, for the ``manifest.csv`` of a prepared dataset, from that of the dataset. Whatever else is
    an image, whether it can be read or not.

    Raises:
        DataError: There is no image, or a table that cannot be read.
    """
    paths: dict[str, None] = {}
    for source in sources:
        if not source:
            raise DataError(
                "an image without a name was given", "Give image files, folders or a table of paths"
            )
        path = Path(source)
        if path.is_dir():
            found, omissions = find_images(path)
            for omission in omissions:
                reporter.warning(omission)
            paths |= dict.fromkeys(str(path / name) for name in found)
        elif source.lower().endswith(TABLES):
            rows = read_table(path, ("path",), hint="The images are listed in the column path")
            seen_from = paths_from(_root_of(path))
            problems = Problems.of_table(path)
            for line, row in rows:
                if not row["path"].strip():
                    problems.add(line, "path is empty")
            problems.raise_if_any("Give each row the path of an image")
            paths |= dict.fromkeys(seen_from(row["path"]) for _, row in rows)
        else:
            paths[str(path)] = None
    if not paths:
        raise DataError(f"no image in {', '.join(sources)}", "Give image files, folders or a table of paths")
    return list(paths)


def paths_from(folder: Path) -> Callable[[str], str]:
    """How a table's paths, which are relative to its folder, are called here."""
    # What steps back from the folder of a link steps back from where the link leads.
    straight = folder.resolve() == folder.absolute()

    def seen(name: str) -> str:
        path = str(folder / name)
        return os.path.normpath(path) if straight and name.startswith("..") else path

    return seen


def _root_of(table: Path) -> Path:
    """The folder that a table's relative paths start from."""
    name = table.resolve().parent.name
    if table.name == "manifest.csv" and manifest_path(name).resolve() == table.resolve():
        card = read_card(name)
        if card is not None:
            return card.root
    return table.parent
