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

PATTERN_HELP = r"For names such as 001_c2_7.png give --pattern '(?P<pid>-?\d+)_c(?P<camid>\d+)_'"
GROUPS = ("camid", "pid", "split")

ONE_CAMERA = (
    "stage 1 has one camera only, stage 2 neither refines labels across cameras nor aligns or weighs by "
    "them, and `calr evaluate` cannot be used, since it looks for matches in another camera"
)
"""What is lost without a second camera."""

NUMBER = re.compile(r"0*(\d{1,9})", re.ASCII)
JUNK = re.compile(r"-0*1([.]0*)?", re.ASCII)
"""A pid that says: nobody, or not known. Tables with gaps write it with a point."""

MANY_CAMERAS = 5
"""From so many cameras on, hardly more images than cameras are a mistake of the pattern."""


def list_own_images(images: Path, pattern: str | None) -> Listing:
    """List the images under a folder whose relative POSIX path the pattern is found in.

    Args:
        images: The folder.
        pattern: Regular expression with some of the named groups ``camid``, ``pid``, ``split``; None
            takes all images, as of one camera.

    Raises:
        DataError: A pattern that cannot be used, or one that fits no image.
    """
    regex = None if pattern is None else compiled_pattern(pattern)
    paths, warnings = find_images(images)
    if not paths:
        raise DataError(
            [*warnings, f"There is no image under {images}"], "Images end in .jpg, .png, .bmp, .webp or .tif"
        )
    if regex is None:
        return own_listing(images, [(path, {}) for path in paths], warnings)
    matches = [(path, regex.search(normalize("NFC", path))) for path in paths]
    found = [(path, match.groupdict("")) for path, match in matches if match]
    warnings += _junk_taken_for_1(images, (match for _, match in matches if match))
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

    Numbers stay as they are, so that figures can be traced to file names; words are counted. Images of pid -1
    in query and gallery are left out, as those of Market-1501 are; in training they are not known.

    Args:
        source: Folder or table, for messages.
        rows: Path of each image, and what is known of it: camid, pid and split, as words.
        warnings: One line each.
    """
    words = ["" if JUNK.fullmatch(row.get("pid", "")) else spelt(row.get("pid", "")) for _, row in rows]
    known = {*words} - {""}
    pids = {w: int(w) for w in known} if all(map(NUMBER.fullmatch, known)) else numbered(known)
    cameras = [spelt(row.get("camid", "")) for _, row in rows]
    camids = numbered(cameras)
    entries = [
        Entry(row.get("split", "train"), path, pids.get(word, UNKNOWN_PID), camids[camera])
        for (path, row), word, camera in zip(rows, words, cameras, strict=True)
        if row.get("split", "train") == "train" or not JUNK.fullmatch(row.get("pid", ""))
    ]
    warnings = [*warnings]
    if not any("camid" in row for _, row in rows):
        warnings.append(f"{source}: no camid is given, so all images count as one camera's: {ONE_CAMERA}")
    elif len(set(camids.values())) == 1:
        warnings.append(f"{source}: all images are of one camera: {ONE_CAMERA}")
    elif len(camids) >= MANY_CAMERAS and 2 * len(camids) > len(rows):
        warnings.append(
            f"{source}: {len(rows)} images are of {len(camids)} cameras, as {first_names(sorted(camids))}: "
            "camid seems to be the number of an image; stage 1 finds nothing in cameras of an image each"
        )
    return Listing(tuple(entries), tuple(warnings), junk=len(rows) - len(entries))


def _junk_taken_for_1(images: Path, matches: Iterable[re.Match[str]]) -> list[str]:
    """What to say where the 1 of a file name that begins with -1 became an identity."""
    names = [
        match.string
        for match in matches
        if "pid" in match.re.groupindex
        and match["pid"]
        and match["pid"].lstrip("0") == "1"
        and f"/{match.string}"[: match.start("pid") + 1].endswith("/-")
    ]
    if not names:
        return []
    return [
        f"{images}: {len(names)} image(s) of identity 1 have names that begin with -1, which is how datasets "
        f"mark junk ({first_names(names)}): if that is so, write (?P<pid>-?\\d+) for (?P<pid>\\d+)"
    ]


def compiled_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression of ``--pattern``; it is searched for in NFC paths.

    Raises:
        DataError: Not a regular expression, or its groups are not those known.
    """
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


def spelt(word: str) -> str:
    """The word, a number without leading zeros: 7 and 007 are one, whatever the others are."""
    return (word.lstrip("0") or "0") if NUMBER.fullmatch(word) else word


def numbered(words: Iterable[str]) -> dict[str, int]:
    """0.. in sorted order, in that of the values if all are numbers."""
    distinct = set(words)
    by_value = all(map(NUMBER.fullmatch, distinct))
    return {word: place for place, word in enumerate(sorted(distinct, key=int if by_value else str))}
