"""Where the published datasets lie under a data root."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from calr_cli.data.manifest import SPLITS
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

    @property
    def not_taken(self) -> str:
        """Why a folder that only looks like the dataset is not taken for it, and what to do."""
        title, folder = self.layout.title, shlex.quote(str(self.folder))
        return (
            f"{self.folder} has folders and file names like those of {title}, but neither its name nor its "
            f"number of images. If they are your own: --images {folder} --pattern REGEX --split 0.5, or a "
            f"table with their splits, --csv FILE; if it is a part of {title}: call the folder "
            f"{self.layout.name}"
        )


@dataclass
class Survey:
    """What was found under a root, nearest the root first.

    Attributes:
        places: Folders of published datasets.
        lookalikes: Folders laid out like one, which is all that speaks for it.
        archives: Zips and tars.
    """

    places: list[Place] = field(default_factory=list)
    lookalikes: list[Place] = field(default_factory=list)
    archives: list[Path] = field(default_factory=list)

    def of(self, layout: DatasetLayout) -> list[Place]:
        """The places of one dataset: first those with the official counts, then the preferred version."""
        own = [place for place in self.places if place.layout == layout]
        if len(own) < 2:
            return own
        return sorted(own, key=lambda place: (not _is_official(place), layout.versions.index(place.version)))


def survey(root: Path) -> Survey:
    """Look for published datasets and archives in ``root`` and the folders below it.

    Market-1501, DukeMTMC-reID and one layout of MSMT17 share their folder names, and people lay their own
    images out like them. So a folder is a dataset's if the nearest folder name that speaks, on the way up to
    the root, is the dataset's, or else if it has the dataset's official number of images.

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
        certain, possible = _recognise(folder, names, root.resolve())
        found.places += certain[:1]
        if not certain:
            found.lookalikes += possible[:1]
        if certain or possible:
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


def _recognise(folder: Path, names: list[str], root: Path) -> tuple[list[Place], list[Place]]:
    """What the folder certainly is, likeliest first, and what else it looks like by its file names."""
    candidates = [
        (layout, version)
        for layout in LAYOUTS.values()
        for version in layout.versions
        if version.folders[0] in names
    ]
    known = [Place(*candidate, folder) for candidate in candidates if candidate[1].recognises(folder)]
    marked = [Place(*candidate, folder) for candidate in _named_alike(candidates, folder, root)]
    certain = [place for place in marked if place in known] or [p for p in known if _is_official(p)]
    return certain or (marked if not known else []), known


def _is_official(place: Place) -> bool:
    """Whether each split has as many images as were published."""
    try:
        entries = place.version.read(place.folder).entries
    except DataError:
        return False
    counts = Counter(entry.split for entry in entries)
    return tuple(counts[split] for split in SPLITS) == place.layout.official.images


def _named_alike(candidates: list[Candidate], folder: Path, root: Path) -> list[Candidate]:
    """Those of the one dataset that the nearest folder with a dataset's name is called like."""
    for step in (folder, *folder.parents):
        marked = [candidate for candidate in candidates if candidate[0].mark.search(step.name)]
        if len({layout.name for layout, _ in marked}) == 1:
            return marked
        if step == root:
            break
    return []
