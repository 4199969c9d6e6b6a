"""Preparing a user's own images under a name of their own."""

from __future__ import annotations

import re
from pathlib import Path

from calr_cli.data.manifest import Record
from calr_cli.errors import ConfigError, DataError
from calr_cli.events import Reporter
from calr_cli.prepare.card import DatasetCard
from calr_cli.prepare.check import Origin, check_listing
from calr_cli.prepare.datasets import DATASET_NAMES
from calr_cli.prepare.datasets.layout import Listing
from calr_cli.prepare.datasets.own import list_own_images
from calr_cli.prepare.datasets.own_table import list_own_table
from calr_cli.prepare.identity_split import split_identities
from calr_cli.prepare.names import ALIASES

NAME = re.compile(r"[A-Za-z0-9_-]+")


def prepare_own_images(
    images: Path,
    name: str | None,
    pattern: str | None,
    split: float | None,
    seed: int,
    reporter: Reporter,
    verify: bool = False,
) -> DatasetCard:
    """Prepare the images of a folder; see `datasets.own.list_own_images`.

    Args:
        images: The folder.
        name: Name of the dataset; the folder's name if None.
        pattern: Regular expression with some of the groups ``camid``, ``pid``, ``split``; None takes
            all images, as of one camera.
        split: Share of identities that train, the others test; None: as the pattern says, else
            every image trains.
        seed: Seed of that split.
        reporter: Hears progress and warnings.
        verify: Read the images again even if nothing was changed.

    Raises:
        ConfigError: The name or the share cannot be used.
        DataError: The folder, the pattern or the images cannot be used.
    """
    folder = _absolute(images)
    if not folder.is_dir():
        raise DataError(
            f"There is no folder {folder}",
            "Give the folder of your images: --images DIR, or a table: --csv FILE",
        )
    name = _checked_name(name if name is not None else folder.name)
    listing = list_own_images(folder, pattern)
    origin = Origin(name, name, "own images", folder, folder)
    return _prepare(listing, origin, split, seed, reporter, verify)


def prepare_own_table(
    table: Path,
    name: str | None,
    split: float | None,
    seed: int,
    reporter: Reporter,
    verify: bool = False,
) -> DatasetCard:
    """Prepare the images of a table; see `datasets.own_table.list_own_table`.

    Args:
        table: CSV, TSV or Parquet with a column path and, if known, camid, pid and split.
        name: Name of the dataset; the file's name without its ending if None.
        split: As in `prepare_own_images`.
        seed: Seed of that split.
        reporter: Hears progress and warnings.
        verify: Read the images again even if nothing was changed.

    Raises:
        ConfigError: The name or the share cannot be used.
        DataError: The table or the images cannot be used.
    """
    file = _absolute(table)
    name = _checked_name(name if name is not None else file.stem)
    listing = list_own_table(file)
    origin = Origin(name, name, "own table", file.parent, file)
    return _prepare(listing, origin, split, seed, reporter, verify)


def _prepare(
    listing: Listing, origin: Origin, share: float | None, seed: int, reporter: Reporter, verify: bool
) -> DatasetCard:
    if share is None:
        return check_listing(listing, origin, reporter, verify=verify)
    if not 0 < share < 1:
        raise ConfigError(f"The split is out of range: {share}", "Give the training share, as 0.5")
    if any(entry.split != "train" for entry in listing.entries):
        raise DataError("The images name their splits already", "Leave --split out")

    def arrange(records: list[Record]) -> list[Record]:
        return split_identities(records, share, seed)

    arrange([(e.split, e.path, e.pid, e.camid, "") for e in listing.entries])  # images are not read in vain
    options = f"split {share} seed {seed}"
    return check_listing(listing, origin, reporter, options=options, arrange=arrange, verify=verify)


def _absolute(path: Path) -> Path:
    """Links are kept: images are where the user sees them, whatever a link to a table leads to."""
    return path.resolve() if ".." in path.parts else path.absolute()


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"'{name}' cannot be the name of a dataset", "Give --name NAME of letters, digits, _ and -"
        )
    if name.lower() in (*DATASET_NAMES, *ALIASES):
        raise ConfigError(f"The name {name} belongs to a built-in dataset", "Give another --name NAME")
    return name
