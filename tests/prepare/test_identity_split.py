from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calr_cli.data.manifest import Record
from calr_cli.errors import DataError
from calr_cli.prepare.identity_split import split_identities

rows = st.lists(st.tuples(st.integers(-1, 6), st.integers(0, 3)), min_size=2, max_size=40).filter(
    lambda pairs: len({pid for pid, _ in pairs if pid >= 0}) >= 2
)


def as_records(pairs: list[tuple[int, int]], random: Random) -> list[Record]:
    return [
        ("train", f"{n}.jpg", pid, camid, f"{random.randrange(16):02x}")
        for n, (pid, camid) in enumerate(pairs)
    ]


@given(rows, st.floats(0.01, 0.99), st.integers(0, 99), st.randoms())
def test_split_promises(pairs: list[tuple[int, int]], share: float, seed: int, random: Random) -> None:
    known = {pid for pid, _ in pairs} - {-1}
    num_train = min(max(round(share * len(known)), 1), len(known) - 1)
    crossing = {pid for pid, c in pairs if len({c2 for p2, c2 in pairs if p2 == pid}) > 1} - {-1}
    records = as_records(pairs, random)
    try:
        result = split_identities(records, share, seed)
    except DataError:  # no test identity was seen by two cameras
        result = []
    if not result:
        assert len(known - crossing) >= len(known) - num_train
        return
    assert sorted(row[1:] for row in result) == sorted(row[1:] for row in records)
    pids = {split: [row[2] for row in result if row[0] == split] for split in ("train", "query", "gallery")}
    train, test = set(pids["train"]) - {-1}, set(pids["gallery"]) | set(pids["query"])
    assert train
    assert test
    assert sorted([*train, *test]) == sorted(known)  # all, and none on both sides
    assert len(train) == num_train
    queries = [row[2:4] for row in result if row[0] == "query"]
    assert queries
    assert len(queries) == len(set(queries))
    assert {pid for pid, _ in queries} == test & crossing
    gallery = {row[2:4] for row in result if row[0] == "gallery"}
    for pid, camid in queries:
        assert any(p == pid and c != camid for p, c in gallery)  # every query has a match
    for pid in test & crossing:
        cameras = {c for p, c in pairs if p == pid}
        two = sum(pairs.count((pid, camid)) > 1 for camid in cameras) > 1
        assert len(cameras) - sum(p == pid for p, _ in queries) == (0 if two else 1)
    shuffled = records.copy()
    random.shuffle(shuffled)
    assert split_identities(shuffled, share, seed) == result


@pytest.mark.parametrize("pids", [[], [4], [4, 4, -1]])
def test_identities_that_cannot_be_divided(pids: list[int]) -> None:
    records = as_records([(pid, camid) for pid in pids for camid in (0, 1)], Random(0))
    with pytest.raises(
        DataError, match=rf"at least two known identities, there are {len({*pids} - {-1})}\. "
    ):
        split_identities(records, 0.5, 1)


def test_a_test_set_without_queries_is_refused() -> None:
    """It would cost half of the training images and measure nothing."""
    lone = [(pid, pid % 2) for pid in range(60)]
    with pytest.raises(
        DataError, match=r"^No identity was seen by two cameras: .* query. Leave --split out$"
    ):
        split_identities(as_records(lone, Random(0)), 0.5, 1)
    with pytest.raises(DataError, match=r"^Of the 1 identities drawn .* Draw others with another --seed, or"):
        split_identities(as_records([*lone, (0, 1)], Random(0)), 0.99, 1)
    with pytest.raises(DataError, match=r"^All images are of one camera, .* Add the group camid to the patt"):
        split_identities(as_records([(pid, 0) for pid in (1, 1, 2, 2)], Random(0)), 0.5, 1)


@pytest.mark.parametrize(
    ("images", "queries"),
    [
        ({0: 8, 1: 8}, [0, 1]),
        ({0: 1, 1: 1}, [1]),  # one image of each camera: one side asks, the other answers
        ({0: 1, 1: 2, 2: 1}, [0, 2]),
        ({0: 1, 1: 2, 2: 2}, [0, 1, 2]),
        ({0: 1, 1: 2}, [0]),
    ],
)
def test_which_cameras_ask(images: dict[int, int], queries: list[int]) -> None:
    pairs = [(pid, camid) for pid in (0, 1) for camid, count in images.items() for _ in range(count)]
    result = split_identities(as_records(pairs, Random(0)), 0.5, 1)
    assert sorted(camid for split, _, _, camid, _ in result if split == "query") == queries
