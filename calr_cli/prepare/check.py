"""A listed dataset is checked, counted and written: manifest and card."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from calr_cli.data.manifest import Record, manifest_path, write_manifest
from calr_cli.data.tables import first_names
from calr_cli.errors import DataError
from calr_cli.events import Reporter
from calr_cli.files import atomic_write, one_at_a_time, strict_json
from calr_cli.prepare.card import (
    DatasetCard,
    card_path,
    count_distractors,
    count_per_camera,
    count_splits,
    differences,
    measure,
    read_card,
    read_card_file,
)
from calr_cli.prepare.datasets.layout import DatasetLayout, Listing
from calr_cli.prepare.doubts import doubts
from calr_cli.prepare.freshness import Stamp, has_stamps, images_there, stamps_of, write_stamps
from calr_cli.prepare.inspection import inspect_images

_FORMAT = 2  # of what is written and warned of: another for every change, so that it is done again

NAMED = 10
"""Unreadable images named one by one; the card names all."""


@dataclass(frozen=True)
class Origin:
    """What a dataset is called and where its images are; the fields are those of `DatasetCard`."""

    name: str
    title: str
    version: str
    root: Path
    source: Path


def check_listing(
    listing: Listing,
    origin: Origin,
    reporter: Reporter,
    *,
    layout: DatasetLayout | None = None,
    options: str = "",
    arrange: Callable[[list[Record]], list[Record]] = list,
    verify: bool = False,
) -> DatasetCard:
    """Check every listed image and write the manifest and the card.

    When nothing was changed since the last time, the images are not read again. Of two processes that
    check the same dataset, the second waits.

    Args:
        listing: The images.
        origin: What the dataset is and where.
        reporter: Hears progress, warnings and the names of unreadable images.
        layout: The published dataset, to compare with its counts.
        options: Whatever else the result depends on (a change makes it be done again).
        arrange: Puts the readable records into splits, where the listing does not know them.
        verify: Read the images again even if nothing was changed.

    Raises:
        DataError: No training image can be read.
        OSError: The manifest or the card cannot be written.
    """
    stamps = stamps_of(origin.root, (entry.path for entry in listing.entries))
    signature = _signature(listing, origin, f"{layout and layout.official} {options}", stamps)
    waiting = f"waiting for another process that prepares {origin.title}"
    with one_at_a_time(manifest_path(origin.name), lambda: reporter.note(waiting)):
        card = None if verify else _unchanged(origin.name, signature)
        if card is None:
            card, records = _check(listing, origin, reporter, layout, arrange)
            card_path(origin.name).unlink(missing_ok=True)  # a card never lies beside another manifest
            write_manifest(card.manifest, records)
            taken = {path: stamps[path] for _, path, *_ in records}
            tables = stamps_of(Path(), [str(card.source)] if card.source.is_file() else [])
            others = images_there(card.name, card.version, card.root) - taken.keys()
            write_stamps(card.name, taken | tables, others)
            _write_card(card, signature)
    for text in (*_name_unreadable(card), *card.warnings):
        reporter.warning(text)
    if verify and not card.unreadable:
        reporter.note(f"{card.title}: every image was read and can be decoded")
    return card


def _check(
    listing: Listing,
    origin: Origin,
    reporter: Reporter,
    layout: DatasetLayout | None,
    arrange: Callable[[list[Record]], list[Record]],
) -> tuple[DatasetCard, list[Record]]:
    results = inspect_images([origin.root / e.path for e in listing.entries], origin.title, reporter)
    pairs = list(zip(listing.entries, results, strict=True))
    records = arrange([(e.split, e.path, e.pid, e.camid, i.digest) for e, i in pairs if i.digest])
    unreadable = tuple(f"{e.path} ({i.problem})" for e, i in pairs if i.problem)
    splits, images_per_camera = count_splits(records), count_per_camera(records)
    if not splits["train"].images:
        raise DataError(
            f"{origin.title}: no training image in {origin.root} can be read"
            + (f": {first_names(unreadable)}" if unreadable else ""),
            "Restore the images from where they came",
        )
    differing = differences(layout, splits, images_per_camera["train"]) if layout else []
    card = DatasetCard(
        **vars(origin),
        splits=splits,
        images_per_camera=images_per_camera,
        official=layout.official if layout else None,
        sizes=measure([(result.width, result.height) for result in results if result.digest]),
        distractors=count_distractors(records),
        junk=listing.junk,
        warnings=(*listing.warnings, *differing, *doubts(origin.title, records)),
        unreadable=unreadable,
        manifest=manifest_path(origin.name),
    )
    return card, records


def _name_unreadable(card: DatasetCard) -> Iterator[str]:
    for image in card.unreadable[:NAMED]:
        yield f"{card.title}: left out, cannot be read: {image}"
    if (more := len(card.unreadable) - NAMED) > 0:
        yield f"{card.title}: left out {more} more, all named in {card_path(card.name)}"


def _signature(listing: Listing, origin: Origin, options: str, stamps: Mapping[str, Stamp]) -> str:
    digest = blake2b(digest_size=16)
    digest.update(
        repr((_FORMAT, vars(origin), options, listing.warnings, listing.junk)).encode(
            errors="surrogateescape"
        )
    )
    for entry in listing.entries:
        digest.update(repr((entry, stamps[entry.path])).encode(errors="surrogateescape"))
    return digest.hexdigest()


def _write_card(card: DatasetCard, signature: str) -> None:
    values = {**card.as_json(), "signature": signature, "manifest_digest": _file_digest(card.manifest)}
    with atomic_write(card_path(card.name)) as temporary:
        temporary.write_text(strict_json(values, indent=2) + "\n", encoding="utf-8")


def _unchanged(name: str, signature: str) -> DatasetCard | None:
    """The card of last time if images and manifest are as they were then."""
    values = read_card_file(name) or {}
    if values.get("signature") != signature:
        return None
    if values.get("manifest_digest") != _file_digest(manifest_path(name)) or not has_stamps(name):
        return None  # edited by hand since: preparing again is how to mend it
    return read_card(name)


def _file_digest(path: Path) -> str:
    try:
        return blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return ""
