"""A user's own images: cameras and identities from a pattern in their paths."""

from __future__ import annotations

import re
import warnings as python_warnings
from collections.abc import Iterable
from pathlib import Path
from unicodedata import normalize

from calr_cli.data.manifest import SPLITS
from calr_cli.data.tables import first_names
from calr_cli.errors import DataError
from calr_cli.prepare.datasets.folders import find_images
from calr_cli.prepare.datasets.layout import Entry, Listing
from calr_cli.types import UNKNOWN_PID

PATTERN_HELP = r"For names such as 001_c2_7.png give --pattern '(?P<pid>\d+)_c(?P<camid>\d+)_'"
GROUPS = ("camid", "pid", "split")

ONE_CAMERA = (
    "stage 1 has one camera only, stage 2 neither refines labels across cameras nor aligns or weighs by "
    "them, and `calr evaluate` cannot be used, since it looks for matches in another camera"
)
"""What is lost without a second camera."""

NUMBER = re.compile(r"\d{1,9}", re.ASCII)
UNKNOWN_WORDS = ("", "-1")
"""What a pid looks like that is not known."""


def list_own_images(images: Path, pattern: str | None) -> Listing:
    """List the images under a folder whose relative POSIX path the pattern is found in.

    Args:
        images: The folder.
        pattern: Regular expression with some of the named groups ``camid``, ``pid``, ``split``; None
            takes all images, as of one camera.

    Raises:
        DataError: A pattern that cannot be used, or one that fits no image.
    """
    regex = None if pattern is None else _compiled(pattern)
    paths, warnings = find_images(images)
    if not paths:
        raise DataError(
            [*warnings, f"There is no image under {images}"], "Images end in .jpg, .png, .bmp, .webp or .tif"
        )
    if regex is None:
        return own_listing(images, [(path, {}) for path in paths], warnings)
    matches = [(path, regex.search(normalize("NFC", path))) for path in paths]
    found = [(path, match.groupdict("")) for path, match in matches if match]
    rows = [(path, row) for path, row in found if row.get("camid", "?")]
    if not rows:
        raise DataError(
            f"The pattern '{pattern}' fits no image under {images}, not even {paths[0]}", PATTERN_HELP
        )
    if wrong := [path for path, row in rows if row.get("split", "train") not in SPLITS]:
        raise DataError(
            f"The pattern's split is none of {', '.join(SPLITS)} in {first_names(wrong)}", PATTERN_HELP
        )
    if len(rows) < len(paths):
        fitted = {path for path, _ in rows}
        left = [path for path in paths if path not in fitted]
        warnings.append(
            f"{images}: {len(left)} image(s) left out, the pattern does not fit: {first_names(left)}"
        )
    return own_listing(images, rows, warnings)


def own_listing(source: Path, rows: list[tuple[str, dict[str, str]]], warnings: Iterable[str]) -> Listing:
    """The images as entries, with what is lost where there is one camera only.

    Args:
        source: Folder or table, for messages.
        rows: Path of each image, and what is known of it: camid, pid and split, as words.
        warnings: One line each.
    """
    words = [row.get("pid", "") for _, row in rows]
    known = [word for word in words if word not in UNKNOWN_WORDS]
    # Numbers stay as they are, so that figures can be traced to file names; words are counted.
    pids = {w: int(w) for w in known} if all(map(NUMBER.fullmatch, known)) else _numbering(known)
    camids = _numbering(row.get("camid", "") for _, row in rows)
    entries = tuple(
        Entry(row.get("split", "train"), path, pids.get(word, UNKNOWN_PID), camids[row.get("camid", "")])
        for (path, row), word in zip(rows, words, strict=True)
    )
    warnings = [*warnings]
    if not any("camid" in row for _, row in rows):
        warnings.append(f"{source}: no camid is given, so all images count as one camera's: {ONE_CAMERA}")
    elif len(set(camids.values())) == 1:
        warnings.append(f"{source}: all images are of one camera: {ONE_CAMERA}")
    return Listing(entries, tuple(warnings))


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        with python_warnings.catch_warnings(action="ignore"):  # of what may mean something else one day
            regex = re.compile(normalize("NFC", pattern))
    except (re.error, OverflowError, RecursionError) as error:
        raise DataError(
            f"The pattern '{pattern}' is not a regular expression: {error}", PATTERN_HELP
        ) from error
    if not regex.groupindex:
        raise DataError(f"The pattern '{pattern}' has no group named {' or '.join(GROUPS)}", PATTERN_HELP)
    if unknown := set(regex.groupindex) - set(GROUPS):
        raise DataError(
            f"The pattern has a group named {min(unknown)}; known are {', '.join(GROUPS)}", PATTERN_HELP
        )
    return regex


def _numbering(words: Iterable[str]) -> dict[str, int]:
    """0.. in sorted order; numbers by value ("2" and "02" are one), if all are numbers."""
    distinct = sorted(set(words))
    if all(map(NUMBER.fullmatch, distinct)):
        places = {value: place for place, value in enumerate(sorted({int(word) for word in distinct}))}
        return {word: places[int(word)] for word in distinct}
    return {word: place for place, word in enumerate(distinct)}
