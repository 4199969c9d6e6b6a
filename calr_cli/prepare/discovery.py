"""Where the published datasets lie under a data root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from calr_cli.errors import DataError
from calr_cli.prepare.archives import is_archive
from calr_cli.prepare.datasets import LAYOUTS
from calr_cli.prepare.datasets.layout import DatasetLayout, Version, is_junk

DEPTH = 4
"""Folders below the root that are looked into: canonical is two (``market1501/Market-1501-v15.09.15``)."""


Candidate = tuple[DatasetLayout, Version]


@dataclass(frozen=True)
class Place:
    """A folder that holds a dataset's split folders in one of its versions."""

    layout: DatasetLayout
    version: Version
    folder: Path


@dataclass
class Survey:
    """What was found under a root, nearest the root first."""

    places: list[Place] = field(default_factory=list)
    archives: list[Path] = field(default_factory=list)

    def of(self, layout: DatasetLayout) -> list[Place]:
        """The places of one dataset, its preferred version first."""
        own = [place for place in self.places if place.layout == layout]
        return sorted(own, key=lambda place: layout.versions.index(place.version))


def survey(root: Path) -> Survey:
    """Look for published datasets and archives in ``root`` and the folders below it.

    Market-1501, DukeMTMC-reID and one layout of MSMT17 share their folder names, so the nearest
    folder name on the way up to the root decides, unless only another dataset knows the file names;
    and if no folder name speaks, the file names do.

    Raises:
        DataError: The root is not a folder that can be read.
    """
    if not root.is_dir():
        raise DataError(f"There is no folder {root}", "Give the folder that holds your datasets: --root DIR")
    try:
        os.scandir(root).close()
    except OSError as error:
        raise DataError(f"The folder {root} cannot be read: {error.strerror}") from error
    found = Survey()
    for folder, names, files in _walk(root.resolve(), DEPTH):
        if place := _recognise(folder, names, root.resolve()):
            found.places.append(place)
            names.clear()  # nothing more to find among the images
        found.archives += [folder / name for name in files if is_archive(name)]
    return found


def _walk(root: Path, depth: int) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Breadth first; the consumer may remove folder names it does not want to enter."""
    level = [root]
    for _ in range(depth + 1):
        below: list[Path] = []
        for folder in level:
            try:
                with os.scandir(folder) as scan:
                    entries = sorted((e for e in scan if not is_junk(e.name)), key=lambda e: e.name)
                names = [entry.name for entry in entries if entry.is_dir()]
                files = [entry.name for entry in entries if entry.is_file()]
            except OSError:
                continue  # a folder of somebody else's below the root is no reason to stop
            yield folder, names, files
            below += [folder / name for name in names]
        level = below


def _recognise(folder: Path, names: list[str], root: Path) -> Place | None:
    candidates = [
        (layout, version)
        for layout in LAYOUTS.values()
        for version in layout.versions
        if version.folders[0] in names
    ]
    known = [Place(*candidate, folder) for candidate in candidates if candidate[1].recognises(folder)]
    marked = [Place(*candidate, folder) for candidate in _named_alike(candidates, folder, root)]
    return next(iter((*[place for place in marked if place in known], *known, *marked)), None)


def _named_alike(candidates: list[Candidate], folder: Path, root: Path) -> list[Candidate]:
    """Those of the one dataset that the nearest folder with a dataset's name is called like."""
    for step in (folder, *folder.parents):
        marked = [candidate for candidate in candidates if candidate[0].mark.search(step.name)]
        if len({layout.name for layout, _ in marked}) == 1:
            return marked
        if step == root:
            break
    return []
