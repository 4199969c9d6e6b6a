from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

from calr_cli.types import Dataset, ImageSet, Neighbours, RetrievalMetrics


def image_set(pids: list[int], camids: list[int]) -> ImageSet:
    names = [str(n) for n in range(len(pids))]
    return ImageSet(
        Path("root"),
        tuple(f"{n}.jpg" for n in names),
        np.array(pids, np.int64),
        np.array(camids, np.int64),
        tuple(names),
    )


def test_a_subset_keeps_every_column_together_and_takes_any_order() -> None:
    images = image_set([5, 6, 7, 8], [0, 1, 2, 3]).subset(np.array([3, 1, 1]))
    assert images.paths == ("3.jpg", "1.jpg", "1.jpg")
    assert images.pids.tolist() == [8, 6, 6]
    assert images.camids.tolist() == [3, 1, 1]
    assert images.digests == ("3", "1", "1")
    assert len(images) == 3


@pytest.mark.parametrize(("pids", "known"), [([0, 1], True), ([0, -1], False), ([], False)])
def test_identities_are_known_only_where_all_are(pids: list[int], known: bool) -> None:
    assert image_set(pids, [0] * len(pids)).has_identities is known


def test_cameras_are_counted_to_the_largest() -> None:
    empty = image_set([], [])
    assert Dataset("x", image_set([0, 0], [0, 4]), empty, empty).num_cameras == 5
    assert Dataset("x", empty, empty, empty).num_cameras == 0


def test_broken_invariants_do_not_travel() -> None:
    with pytest.raises(AssertionError):
        image_set([0, 1], [0])
    with pytest.raises(AssertionError):
        image_set([0, 1], [0, -1])
    with pytest.raises(AssertionError):
        Neighbours(np.zeros((3, 2), np.int64), np.zeros((3, 1), np.float32))
    with pytest.raises(AssertionError):
        Neighbours(np.zeros(3, np.int64), np.zeros(3, np.float32))
    with pytest.raises(FrozenInstanceError):
        image_set([0], [0]).paths = ()  # type: ignore[misc]


def test_rank_counts_from_1_and_stops_at_the_last() -> None:
    metrics = RetrievalMetrics(0.5, np.array([0.2, 0.4, 0.9]), 1, 0.3, np.array([0.5]), np.array([0]))
    assert [metrics.rank(r) for r in (1, 2, 3, 10)] == [0.2, 0.4, 0.9, 0.9]


def test_metrics_of_every_query_agree_with_their_count() -> None:
    cmc, precisions = np.array([1.0]), np.array([0.5, np.nan])
    RetrievalMetrics(0.5, cmc, 1, 0.3, precisions, np.array([0, -1]))
    with pytest.raises(AssertionError):
        RetrievalMetrics(0.5, cmc, 2, 0.3, precisions, np.array([0, -1]))
    with pytest.raises(AssertionError):
        RetrievalMetrics(0.5, cmc, 1, 0.3, precisions, np.array([0]))
