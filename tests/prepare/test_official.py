"""Every layout with its official counts scaled down, Market-1501 with all of them, and a known bad copy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from calr_cli.prepare.card import read_card
from calr_cli.prepare.check import Origin, check_listing
from calr_cli.prepare.datasets import LAYOUTS
from calr_cli.prepare.datasets.layout import BadCopy, DatasetLayout
from calr_cli.prepare.discovery import survey
from calr_cli.prepare.prepared import load_dataset
from calr_cli.prepare.published import prepare_dataset
from tests.support.heard import Heard
from tests.support.made_up import FLAT
from tests.support.official import JUNK, make_official, scaled

VERSIONS = [*((name, "V1") for name in FLAT), ("msmt17", "V1"), ("msmt17", "V2"), ("msmt17", "Market-like")]


def check(layout: DatasetLayout, root: Path, heard: Heard):
    (place,) = survey(root).of(LAYOUTS[layout.name])
    origin = Origin(layout.name, layout.title, place.version.name, place.folder, root)
    return check_listing(place.version.read(place.folder), origin, heard, layout=layout)


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_scaled_down(name: str, version: str, tmp_path: Path) -> None:
    """Each camera has its share of images, down to one: VeRi's smallest has 22 officially."""
    layout = scaled(name, 50)
    folder = make_official(layout, tmp_path, version)
    heard = Heard()
    card = check(layout, tmp_path, heard)
    assert heard.warnings == []
    assert (card.root, card.unreadable, set(card.missing.values())) == (folder, (), {0})
    assert [split.images for split in card.splits.values()] == list(layout.official.images)
    assert [split.ids for split in card.splits.values()] == list(layout.official.ids)
    assert card.images_per_camera["train"] == layout.official.train_per_camera
    assert bool(card.distractors) == (name in ("market1501", "dukemtmcreid"))
    assert bool(card.junk) == (name == "market1501")
    assert len(load_dataset(name).gallery) == layout.official.images[2]
    assert read_card(name) == card


def test_market_with_all_its_images(tmp_path: Path) -> None:
    layout = LAYOUTS["market1501"]
    make_official(layout, tmp_path)
    heard = Heard()
    card = prepare_dataset("market", tmp_path, heard)
    assert heard.warnings == []
    assert [vars(split) for split in card.splits.values()] == [
        {"images": 12936, "ids": 751, "cameras": 6},
        {"images": 3368, "ids": 750, "cameras": 6},
        {"images": 15913, "ids": 751, "cameras": 6},
    ]
    assert card.junk == JUNK["market1501"]
    assert heard.steps == ["Checking Market-1501: 32217 images"]
    assert prepare_dataset("market", tmp_path, heard) == card
    assert len(heard.steps) == 1  # nothing is read again


def test_a_known_bad_copy(tmp_path: Path) -> None:
    """60,910 of 82,161 gallery images of MSMT17, scaled down: its lists are whole, its images are not."""
    layout = scaled("msmt17", 100)
    folder = make_official(layout, tmp_path)
    gallery = (folder / "list_gallery.txt").read_text(encoding="utf-8").splitlines()
    for line in gallery[609:]:
        (folder / "test" / line.split()[0]).unlink()
    heard = Heard()
    card = check(replace(layout, bad_copies=(BadCopy("gallery", 609),)), tmp_path, heard)
    assert card.missing == {"train": 0, "query": 0, "gallery": 821 - 609}
    assert heard.warnings[0].startswith(f"{folder}/list_gallery.txt: 212 listed image(s) are not in test: ")
    assert heard.warnings[1:] == [
        "MSMT17: gallery has 609 of 821 images: a known bad copy, with which results cannot be compared; "
        "the whole one is given on request by its owners, ask at https://www.pkuvmc.com/dataset.html"
    ]
    assert LAYOUTS["msmt17"].bad_copies == (BadCopy("gallery", 60910),)
