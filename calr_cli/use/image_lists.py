"""Which images a user means by files, folders and tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from unicodedata import normalize

from calr_cli.data.manifest import manifest_path
from calr_cli.data.parquet import PARQUET
from calr_cli.data.tables import Problems, read_table
from calr_cli.errors import DataError
from calr_cli.events import Reporter
from calr_cli.prepare.card import read_card
from calr_cli.prepare.datasets.folders import find_images
from calr_cli.prepare.datasets.own import PATTERN_HELP, compiled_pattern

TABLES = (".csv", ".tsv", ".gz", PARQUET)

COLUMNS = ("camid", "track", "identity")
"""What a table may know of an image."""

Known = dict[str, str]
"""Column or group -> word, of one image; without those that are empty or not known."""


def list_images(sources: Sequence[str], reporter: Reporter) -> list[str]:
    """Paths of images, in the order of the sources and without repetition; see `list_known_images`.

    Raises:
        DataError: There is no image, or a table that cannot be read.
    """
    return list(list_known_images(sources, reporter))


def list_known_images(
    sources: Sequence[str], reporter: Reporter, pattern: str | None = None
) -> dict[str, Known]:
    """Paths of images, in the order of the sources and without repetition, and what is known of each.

    A folder means all images below it, sorted by path; a table its column ``path``, from the table's
    folder, or, for the ``manifest.csv`` of a prepared dataset, from that of the dataset. Whatever else is
    an image, whether it can be read or not.

    Args:
        sources: Files, folders and tables.
        reporter: Warned of what is left out.
        pattern: As of ``prepare-data --pattern``, searched for in the paths below a folder, and in those of
            files and tables as they are given. What a table says in columns counts more.

    Raises:
        DataError: There is no image, a table that cannot be read, or a pattern that fits no image.
    """
    regex = None if pattern is None else compiled_pattern(pattern)
    images: dict[str, Known] = {}

    def add(path: str, name: str, known: Known) -> None:
        match = regex.search(normalize("NFC", name)) if regex else None
        in_name = {group: word for group, word in match.groupdict().items() if word} if match else {}
        images[path] = {**in_name, **images.get(path, {}), **known}

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
            for name in found:
                add(str(path / name), name, {})
        elif source.lower().endswith(TABLES):
            rows = read_table(path, ("path",), COLUMNS, hint="The images are listed in the column path")
            seen_from = paths_from(_root_of(path))
            problems = Problems.of_table(path)
            for line, row in rows:
                if not row["path"].strip():
                    problems.add(line, "path is empty")
            problems.raise_if_any("Give each row the path of an image")
            for _, row in rows:
                known = {column: row[column] for column in COLUMNS if row.get(column)}
                add(seen_from(row["path"]), row["path"], known)
        else:
            add(str(path), path.as_posix(), {})
    if not images:
        raise DataError(f"no image in {', '.join(sources)}", "Give image files, folders or a table of paths")
    if pattern is not None and not any(images.values()):
        raise DataError(f"The pattern '{pattern}' fits no image, not even {next(iter(images))}", PATTERN_HELP)
    return images


def cameras_in_names(paths: Sequence[str], pattern: str | None) -> list[str]:
    """What the pattern's group camid finds in each path; "" where there is nothing."""
    regex = None if pattern is None else compiled_pattern(pattern)
    found = (regex.search(normalize("NFC", path)) if regex else None for path in paths)
    return [(match.groupdict().get("camid") or "") if match else "" for match in found]


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
