from __future__ import annotations

import json
from pathlib import Path

import pytest

from calr_cli.data.manifest import Record
from calr_cli.prepare.card import (
    DatasetCard,
    ImageSizes,
    count_distractors,
    count_per_camera,
    count_splits,
    measure,
)
from calr_cli.prepare.datasets.layout import OfficialCounts

RECORDS: list[Record] = [
    ("train", "a.jpg", 1, 0, "a"),
    ("train", "b.jpg", 1, 2, "b"),
    ("train", "c.jpg", -1, 2, "c"),
    ("query", "d.jpg", 5, 0, "d"),
    ("gallery", "e.jpg", 5, 1, "e"),
    ("gallery", "f.jpg", 0, 1, "f"),
    ("gallery", "g.jpg", 6, 3, "g"),
    ("gallery", "h.jpg", -1, 3, "h"),
]


def test_counts() -> None:
    assert {split: tuple(vars(counts).values()) for split, counts in count_splits(RECORDS).items()} == {
        "train": (3, 1, 2),
        "query": (1, 1, 1),
        "gallery": (4, 3, 2),
    }
    assert count_per_camera(RECORDS) == {
        "train": (1, 0, 2, 0),
        "query": (1, 0, 0, 0),
        "gallery": (0, 2, 0, 2),
    }
    assert count_per_camera([]) == {"train": (), "query": (), "gallery": ()}


def test_distractors_are_of_known_identities_that_no_query_shows() -> None:
    assert count_distractors(RECORDS) == 2
    assert count_distractors([record for record in RECORDS if record[0] != "query"]) == 0


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(3, 9)], ((3, 3, 3), (9, 9, 9))),
        ([(3, 9), (1, 10)], ((1, 1, 3), (9, 9, 10))),
        ([(5, 1), (3, 2), (9, 3)], ((3, 5, 9), (1, 2, 3))),
    ],
)
def test_sizes(sizes: list[tuple[int, int]], expected: tuple[tuple[int, ...], ...]) -> None:
    assert measure(sizes) == ImageSizes(*expected)


def card(official: OfficialCounts | None) -> DatasetCard:
    return DatasetCard(
        name="veri",
        title="VeRi-776",
        version="VeRi-776",
        root=Path("/data"),
        source=Path("/data"),
        splits=count_splits(RECORDS),
        images_per_camera=count_per_camera(RECORDS),
        official=official,
        sizes=measure([(1, 2)]),
        distractors=2,
        junk=0,
        warnings=("w",),
        unreadable=("u",),
        manifest=Path("/manifest.csv"),
    )


@pytest.mark.parametrize("official", [None, OfficialCounts((4, 1, 3), (1, 1, 1), (1, 0, 3))])
def test_json_and_back(official: OfficialCounts | None) -> None:
    values = json.loads(json.dumps(card(official).as_json()))
    assert DatasetCard.from_json(values) == card(official)
    assert values["missing"] == ({"train": 1, "query": 0, "gallery": 0} if official else {})
