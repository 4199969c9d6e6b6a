"""Preparing a user's own images under a name of their own."""

from __future__ import annotations

import re
from pathlib import Path

from calr_cli.data.card import DatasetCard
from calr_cli.data.check import Origin, check_listing
from calr_cli.data.datasets import DATASET_NAMES
from calr_cli.data.datasets.layout import Listing
from calr_cli.data.datasets.own import list_own_csv, list_own_images, split_identities
from calr_cli.data.manifest import Record
from calr_cli.data.names import ALIASES
from calr_cli.errors import ConfigError, DataError
from calr_cli.events import Reporter

NAME = re.compile(r"[A-Za-z0-9_-]+")


def prepare_own_images(
    images: Path, name: str | None, pattern: str, split: float | None, seed: int, reporter: Reporter
) -> DatasetCard:
    """Prepare the images of a folder; see `datasets.own.list_own_images`.

    Args:
        images: The folder.
        name: Name of the dataset; the folder's name if None.
        pattern: Regular expression with groups ``camid`` and, if known, ``pid`` and ``split``.
        split: Share of identities that train, the others test; None: as the pattern says, else
            every image trains.
        seed: Seed of that split.
        reporter: Hears progress and warnings.

    Raises:
        ConfigError: The name or the share cannot be used.
        DataError: The folder, the pattern or the images cannot be used.
    """
    folder = images.resolve()
    name = _checked_name(name if name is not None else folder.name)
    listing = list_own_images(folder, pattern)
    origin = Origin(name, name, "own images", folder, folder)
    return _prepare(listing, origin, split, seed, reporter)


def prepare_own_csv(
    csv: Path, name: str | None, split: float | None, seed: int, reporter: Reporter
) -> DatasetCard:
    """Prepare the images of a CSV table; see `datasets.own.list_own_csv`.

    Args:
        csv: Table with columns path, camid and, if known, pid and split.
        name: Name of the dataset; the file's name without its ending if None.
        split: As in `prepare_own_images`.
        seed: Seed of that split.
        reporter: Hears progress and warnings.

    Raises:
        ConfigError: The name or the share cannot be used.
        DataError: The table or the images cannot be used.
    """
    file = csv.resolve()
    name = _checked_name(name if name is not None else file.stem)
    listing = list_own_csv(file)
    origin = Origin(name, name, "own CSV", file.parent, file)
    return _prepare(listing, origin, split, seed, reporter)


def _prepare(
    listing: Listing, origin: Origin, share: float | None, seed: int, reporter: Reporter
) -> DatasetCard:
    if share is None:
        return check_listing(listing, origin, reporter)
    if not 0 < share < 1:
        raise ConfigError(f"The split is out of range: {share}", "Give the training share, as 0.5")
    if any(entry.split != "train" for entry in listing.entries):
        raise DataError("The images name their splits already", "Leave --split out")

    def arrange(records: list[Record]) -> list[Record]:
        return split_identities(records, share, seed)

    return check_listing(listing, origin, reporter, options=f"split {share} seed {seed}", arrange=arrange)


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"'{name}' cannot be the name of a dataset", "Give --name NAME of letters, digits, _ and -"
        )
    if name.lower() in (*DATASET_NAMES, *ALIASES):
        raise ConfigError(f"The name {name} belongs to a built-in dataset", "Give another --name NAME")
    return name
