"""A user's own images: cameras and identities from a file-name pattern or from a CSV table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePath

import numpy as np

from calr_cli.data.datasets.layout import Entry, Listing, image_files
from calr_cli.data.manifest import SPLITS, Record
from calr_cli.data.tables import Problems, first_names, read_table
from calr_cli.errors import DataError
from calr_cli.types import UNKNOWN_PID

PATTERN_HELP = r"For names such as 001_c2_7.png give --pattern '(?P<pid>\d+)_c(?P<camid>\d+)_'"
CSV_HELP = "The columns are path, camid and, if known, pid and split; paths start from the CSV's folder"
CSV_COLUMNS = ("path", "camid")
CSV_OPTIONAL = ("pid", "split")

NUMBER = re.compile(r"\d{1,9}", re.ASCII)
UNKNOWN_WORDS = ("", "-1")
"""What a pid looks like that is not known."""


def list_own_images(images: Path, pattern: str) -> Listing:
    """List the images under a folder whose relative POSIX path the pattern is found in.

    Args:
        images: The folder.
        pattern: Regular expression with the named group ``camid`` and, if known, ``pid``, ``split``.

    Raises:
        DataError: No folder, a pattern that cannot be used, or one that fits no image.
    """
    if not images.is_dir():
        raise DataError(f"There is no folder {images}", "Give the folder of your images: --images DIR")
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise DataError(
            f"The pattern '{pattern}' is not a regular expression: {error}", PATTERN_HELP
        ) from error
    if "camid" not in regex.groupindex:
        raise DataError(f"The pattern '{pattern}' has no group named camid", PATTERN_HELP)
    if unknown := set(regex.groupindex) - {"camid", "pid", "split"}:
        raise DataError(
            f"The pattern has a group named {min(unknown)}; known are camid, pid, split", PATTERN_HELP
        )
    paths = list(image_files(images))
    if not paths:
        raise DataError(f"There is no image under {images}", "Images end in .jpg, .png, .bmp, .webp or .tif")
    matches = [(path, regex.search(path)) for path in paths]
    rows = [(path, match.groupdict("")) for path, match in matches if match and match["camid"]]
    if not rows:
        raise DataError(
            f"The pattern '{pattern}' fits no image under {images}, not even {paths[0]}", PATTERN_HELP
        )
    if wrong := [path for path, row in rows if row.get("split", "train") not in SPLITS]:
        raise DataError(
            f"The pattern's split is none of {', '.join(SPLITS)} in {first_names(wrong)}", PATTERN_HELP
        )
    fitted = {path for path, _ in rows}
    left = [path for path in paths if path not in fitted]
    warnings = [f"{images}: {len(left)} image(s) left out, the pattern does not fit: {first_names(left)}"]
    return Listing(_entries(rows), tuple(warnings if left else ()))


def list_own_csv(csv: Path) -> Listing:
    """List the images of a CSV table; relative paths start from its folder.

    Raises:
        DataError: The table cannot be read, or has blanks, repetitions, unknown splits, absent files.
    """
    problems = Problems(csv)
    rows: list[tuple[str, dict[str, str]]] = []
    seen: dict[str, int] = {}
    for line, row in read_table(csv, CSV_COLUMNS, CSV_OPTIONAL, hint=CSV_HELP):
        path = PurePath(row["path"].strip()).as_posix()
        if not row["path"].strip():
            problems.add(line, "path is blank")
        elif path in seen:
            problems.add(line, f"path is listed twice, first in line {seen[path]}: '{path}'")
        elif not (csv.parent / path).is_file():
            problems.add(line, f"there is no file '{path}'")
        if not row["camid"]:
            problems.add(line, "camid is blank")
        if row.get("split", "train") not in SPLITS:
            problems.add(line, f"split is none of {', '.join(SPLITS)}: '{row['split']}'")
        seen.setdefault(path, line)
        rows.append((path, row))
    problems.raise_if_any(CSV_HELP)
    if not rows:
        raise DataError(f"{csv} lists no image", CSV_HELP)
    return Listing(_entries(rows))


def split_identities(records: list[Record], share: float, seed: int) -> list[Record]:
    """Put a share of the identities into training, the others into query and gallery.

    Of each test identity that two or more cameras saw, the first image of each camera, in the order
    of content digests, is a query; all else is gallery. Images of unknown identity train.

    Args:
        records: Readable images, their split ignored.
        share: Share of identities that train, in 0..1; at least one identity is on either side.
        seed: Seed of the draw.

    Raises:
        DataError: Fewer than two identities are known.
    """
    pids = sorted({record[2] for record in records} - {UNKNOWN_PID})
    if len(pids) < 2:
        raise DataError(
            f"A split needs at least two known identities, there are {len(pids)}",
            "Add the group pid to the pattern, or the column pid to the CSV; without them leave --split out",
        )
    drawn = np.random.default_rng(seed).permutation(pids)
    test = set(drawn[min(max(round(share * len(pids)), 1), len(pids) - 1) :].tolist())
    cameras: dict[int, set[int]] = {}
    for _, _, pid, camid, _ in records:
        cameras.setdefault(pid, set()).add(camid)
    asked: set[tuple[int, int]] = set()
    result: list[Record] = []
    for _, path, pid, camid, digest in sorted(records, key=lambda record: (record[4], record[1])):
        split = "train"
        if pid in test:
            is_query = len(cameras[pid]) > 1 and (pid, camid) not in asked
            split = "query" if is_query else "gallery"
            asked.add((pid, camid))
        result.append((split, path, pid, camid, digest))
    return result


def _entries(rows: list[tuple[str, dict[str, str]]]) -> tuple[Entry, ...]:
    camids = _numbering(row["camid"] for _, row in rows)
    words = [row.get("pid", "") for _, row in rows]
    known = [word for word in words if word not in UNKNOWN_WORDS]
    # Numbers stay as they are, so that figures can be traced to file names; words are counted.
    pids = {w: int(w) for w in known} if all(map(NUMBER.fullmatch, known)) else _numbering(known)
    return tuple(
        Entry(row.get("split", "train"), path, pids.get(word, UNKNOWN_PID), camids[row["camid"]])
        for (path, row), word in zip(rows, words, strict=True)
    )


def _numbering(words: Iterable[str]) -> dict[str, int]:
    """0.. in sorted order; numbers by value ("2" and "02" are one), if all are numbers."""
    distinct = sorted(set(words))
    if all(map(NUMBER.fullmatch, distinct)):
        places = {value: place for place, value in enumerate(sorted({int(word) for word in distinct}))}
        return {word: places[int(word)] for word in distinct}
    return {word: place for place, word in enumerate(distinct)}
