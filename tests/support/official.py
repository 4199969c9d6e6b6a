"""Copies of the published datasets with their official counts, or a share of them; images of a few pixels."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count, cycle, islice
from pathlib import Path

from PIL import Image

from calr_cli.prepare.datasets import LAYOUTS
from calr_cli.prepare.datasets.layout import DatasetLayout, OfficialCounts
from tests.support.made_up import Shot, write_layout

JUNK = {"market1501": 3819}

DIFFERENT = 100
"""Images of a split that differ; the others are links to them, which takes a part of the time."""


def scaled(name: str, divisor: int) -> DatasetLayout:
    """The dataset with its official counts divided, and at least one image of each camera."""
    layout = LAYOUTS[name]
    cameras = tuple(max(images // divisor, 1) for images in layout.official.train_per_camera)
    _, queries, gallery = (images // divisor for images in layout.official.images)
    ids = [max(ids // divisor, 2) for ids in layout.official.ids]
    ids[2] += ids[2] == ids[1] and layout.official.ids[2] > layout.official.ids[1]  # distractors stay some
    return replace(layout, official=OfficialCounts((sum(cameras), queries, gallery), tuple(ids), cameras))


def make_official(layout: DatasetLayout, root: Path, version: str = "V1") -> Path:
    """Write a dataset with just the counts of ``layout.official``, and return the folder of its splits.

    Identities go round the images of a split. Gallery identities without a query are distractors.
    """
    official, name = layout.official, layout.name
    train_ids, query_ids, gallery_ids = official.ids
    cameras = len(official.train_per_camera)
    seen = [camera for camera, images in enumerate(official.train_per_camera, 1) for _ in range(images)]
    numbers = count()
    train = _shots(seen, list(range(train_ids)), numbers)
    test = list(range(train_ids, train_ids + gallery_ids))
    if name == "market1501":
        test[-1] = -1  # distractors are one identity
    queries = _shots(islice(cycle(range(1, cameras + 1)), official.images[1]), test[:query_ids], numbers)
    others = islice(cycle(range(1, cameras + 1)), 1, official.images[2] + 1)  # not the cameras that ask
    gallery = _shots(others, test, numbers)
    if name == "market1501":
        junk = JUNK[name] * official.images[2] // LAYOUTS[name].official.images[2]
        gallery += _shots([1] * junk, [-2], numbers)
    images = root / ".images"
    images.mkdir(parents=True)
    for n in range(3 * DIFFERENT):
        (images / f"{n}.jpg").write_bytes(JPEG + b"%d" % n)  # decoders do not read on after the end of a JPEG

    def link(path: Path, identity: int, n: int) -> None:
        split = (n >= len(train)) + (n >= len(train) + len(queries))
        path.hardlink_to(images / f"{split * DIFFERENT + n % DIFFERENT}.jpg")

    return write_layout(name, root, version, train, queries, gallery, link)


def _shots(cameras: Iterable[int], identities: list[int], numbers: Iterator[int]) -> list[Shot]:
    return [
        (identity, camera, n)
        for camera, identity, n in zip(cameras, cycle(identities), numbers, strict=False)
    ]


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 16), (90, 120, 60)).save(buffer, "JPEG")
    return buffer.getvalue()


JPEG = _jpeg()
