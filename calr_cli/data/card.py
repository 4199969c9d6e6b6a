"""What preparing a dataset found out about it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calr_cli.data.datasets.layout import OfficialCounts
from calr_cli.data.manifest import SPLITS, Record, dataset_folder
from calr_cli.types import UNKNOWN_PID


@dataclass(frozen=True)
class SplitCounts:
    """How many images, known identities and cameras a split has."""

    images: int
    ids: int
    cameras: int


@dataclass(frozen=True)
class DatasetCard:
    """A prepared dataset in numbers.

    Attributes:
        name: Canonical name.
        title: How its authors write it.
        version: Which of its layouts was found.
        root: Folder that the manifest's paths are relative to.
        source: The data root, folder or file that was asked to be prepared.
        splits: Counts of train, query and gallery.
        train_per_camera: Training images of camera 0, 1, ...
        warnings: One line each: differences from the official counts, files left out.
        unreadable: "path (reason)" of each image that was left out because it cannot be decoded.
        manifest: The manifest that was written.
    """

    name: str
    title: str
    version: str
    root: Path
    source: Path
    splits: dict[str, SplitCounts]
    train_per_camera: tuple[int, ...]
    warnings: tuple[str, ...]
    unreadable: tuple[str, ...]
    manifest: Path

    def as_json(self) -> dict[str, Any]:
        """The card as values that JSON knows."""
        return {
            "name": self.name,
            "title": self.title,
            "version": self.version,
            "root": str(self.root),
            "source": str(self.source),
            "splits": {split: vars(counts).copy() for split, counts in self.splits.items()},
            "train_per_camera": list(self.train_per_camera),
            "warnings": list(self.warnings),
            "unreadable": list(self.unreadable),
            "manifest": str(self.manifest),
        }

    @staticmethod
    def from_json(values: dict[str, Any]) -> DatasetCard:
        """The card that `as_json` was made from.

        Raises:
            KeyError: A value is missing.
            TypeError: A value is of another kind.
        """
        return DatasetCard(
            name=values["name"],
            title=values["title"],
            version=values["version"],
            root=Path(values["root"]),
            source=Path(values["source"]),
            splits={split: SplitCounts(**values["splits"][split]) for split in SPLITS},
            train_per_camera=tuple(values["train_per_camera"]),
            warnings=tuple(values["warnings"]),
            unreadable=tuple(values["unreadable"]),
            manifest=Path(values["manifest"]),
        )


def card_path(name: str) -> Path:
    """Where the card of dataset ``name`` lies, whether there is one or not."""
    return dataset_folder(name) / "card.json"


def read_card_file(name: str) -> dict[str, Any] | None:
    """The values of ``card.json``; None if there is no such file or it was damaged."""
    try:
        values = json.loads(card_path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def read_card(name: str) -> DatasetCard | None:
    """The card of a prepared dataset; None if it is not prepared or the card was damaged."""
    values = read_card_file(name)
    try:
        return DatasetCard.from_json(values) if values else None
    except (KeyError, TypeError):
        return None


def count_records(records: list[Record]) -> tuple[dict[str, SplitCounts], tuple[int, ...]]:
    """Counts of each split, and training images of each camera."""
    splits = {}
    for split in SPLITS:
        own = [record for record in records if record[0] == split]
        splits[split] = SplitCounts(
            images=len(own),
            ids=len({record[2] for record in own} - {UNKNOWN_PID}),
            cameras=len({record[3] for record in own}),
        )
    cameras = np.array([record[3] for record in records if record[0] == "train"], dtype=np.int64)
    return splits, tuple(np.bincount(cameras).tolist())


def differences(
    title: str, official: OfficialCounts, splits: dict[str, SplitCounts], train_per_camera: tuple[int, ...]
) -> list[str]:
    """One line for each split, and one for the cameras, whose counts are not the official ones."""
    lines = []
    for split, images, ids in zip(SPLITS, official.images, official.ids, strict=True):
        found = splits[split]
        if (found.images, found.ids) != (images, ids):
            lines.append(
                f"{title}: {split} has {found.images:,} images of {found.ids:,} identities, "
                f"officially {images:,} of {ids:,}"
            )
    expected = official.train_per_camera
    found_per_camera = (*train_per_camera, *[0] * (len(expected) - len(train_per_camera)))
    if unequal := [camid for camid, count in enumerate(expected) if found_per_camera[camid] != count]:
        parts = [f"camid {c} has {found_per_camera[c]:,} ({expected[c]:,})" for c in unequal]
        lines.append(f"{title}: training images per camera differ (official count): {', '.join(parts)}")
    return lines
