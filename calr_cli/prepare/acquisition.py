"""A dataset that is not yet a folder: it is in an archive, or on the network."""

from __future__ import annotations

from pathlib import Path

from calr_cli.errors import DataError
from calr_cli.events import Reporter
from calr_cli.prepare.archives import Archive
from calr_cli.prepare.datasets import LAYOUTS
from calr_cli.prepare.datasets.layout import DatasetLayout
from calr_cli.prepare.discovery import Place, Survey, survey
from calr_cli.prepare.unpacking import unpack, unpacked_already

TOLD_BY = tuple(
    dict.fromkeys(version.folders[0] for layout in LAYOUTS.values() for version in layout.versions)
)
"""The folders by which the datasets are found."""


def unpack_found(layout: DatasetLayout, found: Survey, reporter: Reporter) -> list[Place]:
    """Where a dataset is in the first archive that is called like it and holds its folders.

    Raises:
        DataError: Such an archive cannot be unpacked.
    """
    for archive in found.archives:
        if not layout.mark.search(archive.name):
            continue
        done = unpacked_already(archive, archive.parent)
        if done and (places := survey(done).of(layout)):
            return places
        with Archive(archive, reporter) as opened:
            certain = opened.holds_folder({version.folders[0] for version in layout.versions})
            if not certain and not opened.holds_archive():
                continue
            target = unpack(opened, archive.parent, reporter)
        if places := survey(target).of(layout):
            return places
        if certain:
            raise DataError(
                f"{archive} holds {layout.title}, but {target} does not",
                "Move that folder away, then it is unpacked again",
            )
    return []


def unpack_given(archive: Path, root: Path, reporter: Reporter) -> list[Place]:
    """Unpack an archive of any name below ``root``, or beside itself if it is there; say what it holds.

    Raises:
        DataError: It cannot be unpacked, or holds no published dataset.
    """
    if not archive.is_file():
        raise DataError(f"There is no file {archive}", "Give an archive that you have: --archive FILE")
    folder = archive.parent if archive.resolve().is_relative_to(root.resolve()) else root
    target = unpacked_already(archive, folder)
    if target is None:
        with Archive(archive, reporter) as opened:
            if opened.holds_folder(TOLD_BY) or opened.holds_archive():
                target = unpack(opened, folder, reporter)
    found = survey(target) if target else Survey()
    if not found.places and found.lookalikes:
        raise DataError([place.not_taken for place in found.lookalikes])
    places = found.places
    if not places:
        raise DataError(
            f"{archive} holds no folder {', '.join(TOLD_BY)} of a published dataset"
            + (f"; what it holds is in {target}" if target else ""),
            "Your own images have to be unpacked, then give their folder: --images DIR --pattern REGEX",
        )
    titles = ", ".join(f"{place.layout.title} ({place.version.name})" for place in places)
    reporter.note(f"{archive.name} holds {titles}, unpacked in {target}")
    return places


def fetch(layout: DatasetLayout, root: Path, reporter: Reporter) -> list[Place]:
    """Download a dataset that is open to all into its folder below ``root``, and unpack it; else nothing.

    Raises:
        DataError: It cannot be fetched or unpacked.
    """
    if layout.download is None:
        return []
    from calr_cli.downloads import Digest, DriveFile, download  # takes long to import, and is seldom needed

    archive = root / layout.name / layout.download.file_name
    download(
        [DriveFile(layout.download.drive_id, layout.download.resource_key)],
        archive,
        Digest("md5", layout.download.md5),
        layout.title,
        reporter,
        DataError,
        hint="Fetch it with a browser, then give the file: --archive FILE",
    )
    return unpack_given(archive, root, reporter)
