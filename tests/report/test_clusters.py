from __future__ import annotations

from pathlib import Path

import numpy as np

from calr_cli.report.clusters import MEMBERS, Member, choose_clusters
from calr_cli.types import UNKNOWN_PID, ImageSet


def images(pids: list[int], camids: list[int]) -> ImageSet:
    names = tuple(map(str, range(len(pids))))
    return ImageSet(Path(), names, np.array(pids), np.array(camids), names)


def test_those_that_lost_most_come_first_then_the_largest() -> None:
    before = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, -1])
    after = np.array([0, 0, 0, 1, -1, 2, 2, 2, 2, -1])
    found = choose_clusters(before, after, np.array([0, 3, -1]), images([0] * 10, [0] * 10), 2)
    assert [cluster.label for cluster in found] == [1, 2]
    assert [(c.num_members, c.num_discarded) for c in found] == [(1, 1), (4, 0)]
    assert found[1].pivot is None


def test_members_are_judged_by_the_pivot() -> None:
    before, after = np.zeros(4, np.int64), np.array([0, 0, -1, -1])
    (found,) = choose_clusters(before, after, np.array([1]), images([5, 7, 7, 5], [1, 0, 0, 0]), 3)
    assert found.pivot == Member(1, 0, True)
    assert found.members == [Member(0, 1, False)]
    assert found.discarded == [Member(2, 0, True), Member(3, 0, False)]
    assert (found.num_cameras, found.purity) == (2, 0.5)


def test_nobody_is_judged_without_identities() -> None:
    labels = np.zeros(3, np.int64)
    (found,) = choose_clusters(labels, labels, np.array([0]), images([UNKNOWN_PID] * 3, [0] * 3), 1)
    assert found.purity is None
    assert [member.agrees for member in found.members] == [None, None]


def test_every_camera_is_among_those_shown() -> None:
    camids = [0] * 50 + [1] * 2 + [2]
    labels = np.zeros(len(camids), np.int64)
    (found,) = choose_clusters(labels, labels, np.array([0]), images([1] * len(camids), camids), 1)
    shown = [member.camid for member in found.members]
    assert len(shown) == MEMBERS
    assert shown == sorted(shown)
    assert (shown.count(1), shown.count(2)) == (2, 1)


def test_no_clusters() -> None:
    nothing = np.full(3, -1)
    assert choose_clusters(nothing, nothing, np.zeros(0, np.int64), images([1] * 3, [0] * 3), 4) == []
