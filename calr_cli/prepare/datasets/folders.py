"""All images under a user's folder, links followed."""

from __future__ import annotations

import os
from heapq import heappop, heappush
from pathlib import Path

from calr_cli.data.tables import first_names
from calr_cli.prepare.datasets.layout import IMAGE_SUFFIXES, is_junk


def find_images(folder: Path) -> tuple[list[str], list[str]]:
    """Relative POSIX paths of all images at any depth, sorted, and one line for each kind of omission.

    Links are followed, but no folder is listed twice: of several ways to it, the one with the fewest links
    counts, then the first by name. So links that lead in a circle end, and do not multiply images.
    """
    paths: list[str] = []
    repeated: list[str] = []
    unreadable: list[str] = []
    seen = {_identity(str(parent)) for parent in folder.resolve().parents}
    waiting = [(0, "")]  # how many links lead to the folder, and its relative path, ending in a slash
    while waiting:
        links, place = heappop(waiting)
        try:
            if (identity := _identity(f"{folder}/{place}")) in seen:
                repeated.append(place.rstrip("/"))
                continue
            seen.add(identity)
            with os.scandir(f"{folder}/{place}") as entries:
                for entry in entries:
                    name, is_link = entry.name, entry.is_symlink()
                    if is_junk(name):
                        continue
                    if is_link and not os.path.exists(entry.path):  # noqa: PTH110 - a circle makes no error
                        unreadable.append(f"{place}{name} (broken link)")
                    elif entry.is_dir():
                        heappush(waiting, (links + is_link, f"{place}{name}/"))
                    elif os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and entry.is_file():  # noqa: PTH122
                        paths.append(place + name)
        except OSError as error:
            unreadable.append(f"{place.rstrip('/') or '.'} ({error.strerror})")
    warnings = []
    if repeated:
        warnings.append(
            f"{folder}: {len(repeated)} link(s) not followed, the folders that they lead to are listed "
            f"already: {first_names(sorted(repeated))}"
        )
    if unreadable:
        warnings.append(f"{folder}: left out, cannot be read: {first_names(sorted(unreadable))}")
    return sorted(paths), warnings


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116
    return status.st_dev, status.st_ino
