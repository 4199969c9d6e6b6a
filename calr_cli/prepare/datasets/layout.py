"""What describes a published dataset's folders, file names and official counts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from calr_cli.data.manifest import SPLITS
from calr_cli.data.tables import first_names
from calr_cli.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

ITSELF = r"(?<![a-z])(?<!occluded[-_ ])(?<!partial[-_ ])(?<!\bp[-_])"
"""Begins the mark of a dataset: it is not within a word, and is not what others made of the dataset."""

SAMPLED = 50
"""File names looked at to tell a dataset by its names."""


@dataclass(frozen=True)
class Entry:
    """One image as its file name or list describes it; ``path`` is relative to the dataset's folder."""

    split: str
    path: str
    pid: int
    camid: int


@dataclass(frozen=True)
class Listing:
    """The images of a dataset, not yet read, and what was left out of them.

    Attributes:
        entries: The images.
        warnings: One line for each group that was left out and should be there.
        junk: Images that the dataset's authors want to be left out.
    """

    entries: tuple[Entry, ...]
    warnings: tuple[str, ...] = ()
    junk: int = 0


@dataclass(frozen=True)
class OfficialCounts:
    """Published counts; triples are train, query, gallery."""

    images: tuple[int, int, int]
    ids: tuple[int, int, int]
    train_per_camera: tuple[int, ...]


@dataclass(frozen=True)
class BadCopy:
    """A copy that goes around and is known to be bad: one split of it has this many images."""

    split: str
    images: int


@dataclass(frozen=True)
class Download:
    """An archive on Google Drive that anybody may fetch."""

    file_name: str
    drive_id: str
    resource_key: str
    md5: str


class Version(Protocol):
    """One way in which a dataset's files are laid out."""

    @property
    def name(self) -> str:
        """How the version is called in messages."""
        ...

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders of the images; the first, the training images', tells the version."""
        ...

    def recognises(self, folder: Path) -> bool:
        """Whether the content of ``folder`` is of this dataset, when no folder's name says so."""
        ...

    def read(self, folder: Path) -> Listing:
        """List the images under the dataset's folder.

        Raises:
            DataError: Folders or lists are missing, or no file name can be understood.
        """
        ...


@dataclass(frozen=True)
class DatasetLayout:
    """A published dataset.

    Attributes:
        name: Canonical name.
        title: How its authors write it.
        aliases: Other names for it.
        mark: Matches the names of its folders and archives.
        source: Where it comes from, one line.
        official: Its published counts.
        versions: Its layouts, the preferred one first.
        download: Its archive, where anybody may fetch it.
        bad_copies: What to call by its name.
    """

    name: str
    title: str
    aliases: tuple[str, ...]
    mark: re.Pattern[str]
    source: str
    official: OfficialCounts
    versions: tuple[Version, ...]
    download: Download | None = None
    bad_copies: tuple[BadCopy, ...] = ()


@dataclass(frozen=True)
class FlatVersion:
    """One folder per split; the file name holds identity and camera.

    Attributes:
        name: How the version is called in messages.
        folders: Folders of train, query and gallery.
        pattern: Matches the start of a file name, with groups ``pid`` and ``camera`` (from 1).
        num_cameras: Cameras; a file name with another camera is not understood.
        example: A file name, for messages.
    """

    name: str
    folders: tuple[str, ...]
    pattern: re.Pattern[str]
    num_cameras: int
    example: str

    def parse(self, file_name: str) -> tuple[int, int] | None:
        """The pid and camid (from 0) of a file name, or None."""
        if not (match := self.pattern.match(file_name)):
            return None
        camera = int(match["camera"])
        return (int(match["pid"]), camera - 1) if 1 <= camera <= self.num_cameras else None

    def recognises(self, folder: Path) -> bool:
        """See `Version.recognises`."""
        paths = islice(image_files(folder / self.folders[0]), SAMPLED)
        return any(self.parse(path.rpartition("/")[2]) for path in paths)

    def read(self, folder: Path) -> Listing:
        """See `Version.read`. Images of pid -1 (junk in Market-1501) are left out and counted."""
        require_folders(folder, self.folders)
        entries: list[Entry] = []
        warnings: list[str] = []
        junk = 0
        for split, name in zip(SPLITS, self.folders, strict=True):
            paths = list(image_files(folder / name))
            parsed = [(path, self.parse(path.rpartition("/")[2])) for path in paths]
            unknown = [path for path, found in parsed if found is None]
            if len(unknown) == len(paths):
                seen = f"none of its {len(paths)} images (as {paths[0]})" if paths else "no image"
                raise DataError(
                    f"{folder / name} has {seen} with a name such as {self.example} and a camera from 1 to "
                    f"{self.num_cameras}",
                    "Restore the original file names, or use --images DIR --pattern REGEX for your own",
                )
            cameras = [path for path in unknown if self.pattern.match(path.rpartition("/")[2])]
            for why, left in (
                (f"names not as {self.example}", [path for path in unknown if path not in {*cameras}]),
                (f"no camera 1 to {self.num_cameras} in the name", cameras),
            ):
                if left:
                    warnings.append(
                        f"{folder / name}: {len(left)} image(s) left out, {why}: {first_names(left)}"
                    )
            known = [(path, ids) for path, ids in parsed if ids]
            entries += [Entry(split, f"{name}/{path}", *ids) for path, ids in known if ids[0] >= 0]
            junk += sum(pid < 0 for _, (pid, _) in known)
        return Listing(tuple(entries), tuple(warnings), junk)


def require_folders(folder: Path, names: tuple[str, ...]) -> None:
    """Raise unless every folder is there.

    Raises:
        DataError: Names the missing folders.
    """
    if missing := [name for name in names if not (folder / name).is_dir()]:
        raise DataError(
            f"{folder} has no folder {', '.join(missing)}", "Unpack the dataset again, as a whole"
        )


def is_junk(name: str) -> bool:
    """Whether a file or folder is left by an operating system, not by the dataset's authors."""
    return name.startswith((".", "__MACOSX")) or name in {"Thumbs.db", "desktop.ini"}


def image_files(folder: Path) -> Iterator[str]:
    """Relative POSIX paths of all images at any depth under ``folder``, sorted in each folder."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_junk(name))
        place = Path(parent).relative_to(folder).as_posix()
        start = "" if place == "." else f"{place}/"
        for name in sorted(files):
            if not is_junk(name) and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122
                yield start + name
