"""Identities as a table, and as a folder for each."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from calr_cli.data.tables import write_table
from calr_cli.errors import ConfigError
from calr_cli.files import is_written_through
from calr_cli.types import OUTLIER
from calr_cli.use.feature_files import path_from
from calr_cli.use.identities import Identities
from calr_cli.use.outputs import check_output

COLUMNS = ("path", "identity", "camera", "confidence", "outlier", "duplicate_of")

OUTLIERS = "outliers"
"""Folder of the images without an identity."""


def check_identity_output(path: Path, inputs: Iterable[str | Path]) -> None:
    """Raise unless identities can be written to ``path`` without a loss.

    Raises:
        ConfigError: See `check_output`; or a table that is there is something else.
    """
    check_output("--output", path, (".csv",), inputs)
    if path.is_file() and not is_written_through(path):
        with path.open("rb") as file:
            head = file.readline().decode("utf-8", "replace").strip()
        if head and head != ",".join(COLUMNS):
            raise ConfigError(
                f"--output {path} is there, and it is no table of identities: it would be lost",
                "Give another name, or delete it",
            )


def write_identities(path: Path, found: Identities) -> None:
    """Write a row for each image, whole or not at all; relative paths start from the file's folder.

    Raises:
        OSError: The folder cannot be written or the disk is full.
    """
    folder = os.path.realpath(path.parent)
    names = [path_from(folder, name) for name in found.pile.paths]
    columns = (found.labels.tolist(), found.pile.cameras, found.confidence.tolist(), found.repeats)
    write_table(
        path,
        COLUMNS,
        [
            (
                name,
                "" if label == OUTLIER else label,
                camera,
                f"{confidence:.3f}",
                int(label == OUTLIER),
                "" if repeated is None else names[repeated],
            )
            for name, label, camera, confidence, repeated in zip(names, *columns, strict=True)
        ],
    )


def check_folders(path: Path, sources: Sequence[str]) -> None:
    """Raise unless a folder of folders can be made at ``path``; nothing that is there is touched.

    Raises:
        ConfigError: It is there and not empty, cannot be made, or lies in a folder that the command reads.
    """
    place = Path(os.path.realpath(path))
    if os.path.lexists(path) and not (place.is_dir() and not any(place.iterdir())):
        raise ConfigError(f"--folders {path} is there already", "Give a new folder: calr deletes nothing")
    for source in sources:
        if Path(source).is_dir() and place.is_relative_to(os.path.realpath(source)):
            raise ConfigError(
                f"--folders {path} lies in {source}, whose images are read: the next time its links would be "
                "images too",
                "Give a folder elsewhere",
            )
    there = next(parent for parent in place.parents if parent.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"--folders {path} cannot be made: {there} is not writable")


def write_folders(path: Path, found: Identities, copy: bool) -> None:
    """Make a folder for each identity, whole or not at all, with links to its images or with copies.

    Raises:
        ConfigError: The system makes no links.
        OSError: The folder cannot be made or the disk is full.
    """
    digits = max(4, len(str(found.labels.max(initial=0))))
    place = Path(os.path.realpath(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name[:48]}.") as temporary:
            whole = Path(temporary) / "folders"
            for name, label in zip(found.pile.paths, found.labels.tolist(), strict=True):
                folder = whole / (OUTLIERS if label == OUTLIER else f"{label:0{digits}}")
                folder.mkdir(parents=True, exist_ok=True)
                target = _free(folder, Path(name).name)
                if copy:
                    shutil.copyfile(name, target)
                else:
                    _link(target, Path(name).absolute())
            if place.is_dir():
                place.rmdir()  # an empty one, as was checked
            whole.rename(place)
    except OSError as error:
        error.filename = str(path)  # nobody knows the temporary name
        raise


def _free(folder: Path, name: str) -> Path:
    """Images of two folders may have the same name."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - of a name that may end in a point
    number, path = 1, folder / name
    while os.path.lexists(path):
        number += 1
        path = folder / f"{stem}-{number}{suffix}"
    return path


def _link(path: Path, target: Path) -> None:
    try:
        path.symlink_to(target)
    except PermissionError as error:  # Windows without the privilege, file systems without links
        raise ConfigError(f"--folders: this system makes no links ({error})", "Give --copy") from None
