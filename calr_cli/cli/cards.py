"""What preparing found out about a dataset, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calr_cli.cli.console import print_paths, print_table, print_text

if TYPE_CHECKING:
    from calr_cli.prepare.card import DatasetCard


def show_card(card: DatasetCard, broken: bool) -> None:
    """The counts by split and by camera, beside the official ones where there are any, and what is special.

    Args:
        card: Of a prepared dataset.
        broken: Whether to list all images that cannot be read; else only their number is given.
    """
    print_text(f"{card.title}, {card.version}")
    print_text("")
    show_splits(card)
    print_text("")
    show_cameras(card)
    print_paths(
        {
            "name": card.name,
            "width": _spread(*card.sizes.width),
            "height": _spread(*card.sizes.height),
            **_of_a_test_set(card),
            "unreadable": f"{len(card.unreadable):,} images, left out",
            **({"missing": _missing(card)} if card.official else {}),
            "folder": card.root,
            "manifest": card.manifest,
        }
    )
    if broken and card.unreadable:
        print_text("\ncannot be read:")
        for image in card.unreadable:
            print_text(f"  {image}")


def show_splits(card: DatasetCard) -> None:
    """A row for each split."""
    header = ["split", "images", "identities", "cameras"]
    rows = [[s, f"{c.images:,}", f"{c.ids:,}", str(c.cameras)] for s, c in card.splits.items()]
    if card.official:
        header += ["images officially", "identities officially"]
        for row, images, ids in zip(rows, card.official.images, card.official.ids, strict=True):
            row += [f"{images:,}", f"{ids:,}"]
    print_table(header, rows)


def show_cameras(card: DatasetCard) -> None:
    """A row for each camera."""
    header = ["camid", *card.splits]
    rows = [
        [str(camid), *(f"{images:,}" for images in counts)]
        for camid, counts in enumerate(zip(*card.images_per_camera.values(), strict=True))
    ]
    if card.official:
        header.append("train officially")
        for camid, images in enumerate(card.official.train_per_camera):
            if camid == len(rows):
                rows.append([str(camid), *("0" for _ in card.splits)])
            rows[camid].append(f"{images:,}")
    print_table(header, rows)


def _of_a_test_set(card: DatasetCard) -> dict[str, str]:
    """What there is to say where something is searched for in a gallery."""
    if not card.splits["gallery"].images:
        return {}
    return {
        "distractors": f"{card.distractors:,} gallery images, of identities that no query shows",
        "junk": f"{card.junk:,} images, left out",
    }


def _spread(smallest: int, median: int, largest: int) -> str:
    return f"{smallest} to {largest} pixels, median {median}"


def _missing(card: DatasetCard) -> str:
    parts = [f"{count:,} images of {split}" for split, count in card.missing.items() if count]
    return ", ".join(parts) or "nothing"
