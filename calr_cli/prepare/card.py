"""What preparing a dataset found out about it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calr_cli.data.manifest import SPLITS, Record, dataset_folder
from calr_cli.prepare.datasets.layout import BadCopy, DatasetLayout, OfficialCounts
from calr_cli.types import UNKNOWN_PID


@dataclass(frozen=True)
class SplitCounts:
    """How many images, known identities and cameras a split has."""

    images: int
    ids: int
    cameras: int


@dataclass(frozen=True)
class ImageSizes:
    """Smallest, median and largest width and height of the images, in pixels."""

    width: tuple[int, int, int]
    height: tuple[int, int, int]


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
        images_per_camera: Images of camera 0, 1, ... in each split.
        official: The published counts, of a published dataset.
        sizes: Of the images, all splits together.
        distractors: Gallery images of known identities that no query shows.
        junk: Images that the dataset's authors want to be left out.
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
    images_per_camera: dict[str, tuple[int, ...]]
    official: OfficialCounts | None
    sizes: ImageSizes
    distractors: int
    junk: int
    warnings: tuple[str, ...]
    unreadable: tuple[str, ...]
    manifest: Path

    @property
    def missing(self) -> dict[str, int]:
        """By how many images each split has fewer than officially."""
        if self.official is None:
            return {}
        pairs = zip(SPLITS, self.official.images, strict=True)
        return {split: max(images - self.splits[split].images, 0) for split, images in pairs}

    def as_json(self) -> dict[str, Any]:
        """The card as values that JSON knows."""
        return {
            "name": self.name,
            "title": self.title,
            "version": self.version,
            "root": str(self.root),
            "source": str(self.source),
            "splits": {split: vars(counts).copy() for split, counts in self.splits.items()},
            "images_per_camera": {split: list(counts) for split, counts in self.images_per_camera.items()},
            "official": asdict(self.official) if self.official else None,
            "missing": self.missing,
            "sizes": asdict(self.sizes),
            "distractors": self.distractors,
            "junk": self.junk,
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
            images_per_camera={split: tuple(values["images_per_camera"][split]) for split in SPLITS},
            official=OfficialCounts(**_tuples(values["official"])) if values["official"] else None,
            sizes=ImageSizes(**_tuples(values["sizes"])),
            distractors=values["distractors"],
            junk=values["junk"],
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


def count_splits(records: Sequence[Record]) -> dict[str, SplitCounts]:
    """Images, known identities and cameras of each split."""
    splits = {}
    for split in SPLITS:
        own = [record for record in records if record[0] == split]
        splits[split] = SplitCounts(
            images=len(own),
            ids=len({record[2] for record in own} - {UNKNOWN_PID}),
            cameras=len({record[3] for record in own}),
        )
    return splits


def count_per_camera(records: Sequence[Record]) -> dict[str, tuple[int, ...]]:
    """Images of each camera in each split; all splits have as many numbers."""
    cameras = max((record[3] for record in records), default=-1) + 1
    counts = {split: [0] * cameras for split in SPLITS}
    for split, _, _, camid, _ in records:
        counts[split][camid] += 1
    return {split: tuple(own) for split, own in counts.items()}


def count_distractors(records: Sequence[Record]) -> int:
    """Gallery images of known identities that no query shows; 0 if there is no query at all."""
    asked = {record[2] for record in records if record[0] == "query"}
    known = asked | {UNKNOWN_PID}
    return sum(record[0] == "gallery" and record[2] not in known for record in records) if asked else 0


def measure(sizes: Sequence[tuple[int, int]]) -> ImageSizes:
    """Of the width and height of one image or more; the median is a value that occurs."""

    def spread(values: list[int]) -> tuple[int, int, int]:
        values.sort()
        return values[0], values[(len(values) - 1) // 2], values[-1]

    return ImageSizes(spread([width for width, _ in sizes]), spread([height for _, height in sizes]))


def differences(
    layout: DatasetLayout, splits: dict[str, SplitCounts], train_per_camera: Sequence[int]
) -> list[str]:
    """One line for each split, and one for the cameras, whose counts are not the official ones."""
    lines = []
    official = layout.official
    for split, images, ids in zip(SPLITS, official.images, official.ids, strict=True):
        found = splits[split]
        if BadCopy(split, found.images) in layout.bad_copies:
            lines.append(
                f"{layout.title}: {split} has {found.images:,} of {images:,} images: a known bad copy, "
                f"with which results cannot be compared; the whole one is {layout.source}"
            )
        elif (found.images, found.ids) != (images, ids):
            lines.append(
                f"{layout.title}: {split} has {found.images:,} images of {found.ids:,} identities, "
                f"officially {images:,} of {ids:,}"
            )
    expected = official.train_per_camera
    found_per_camera = (*train_per_camera, *[0] * (len(expected) - len(train_per_camera)))
    if unequal := [camid for camid, count in enumerate(expected) if found_per_camera[camid] != count]:
        parts = [f"camid {c} has {found_per_camera[c]:,} ({expected[c]:,})" for c in unequal]
        lines.append(
            f"{layout.title}: training images per camera differ (official count): {', '.join(parts)}"
        )
    return lines


def _tuples(values: dict[str, list[int]]) -> dict[str, Any]:
    """JSON knows lists only."""
    return {name: tuple(numbers) for name, numbers in values.items()}
