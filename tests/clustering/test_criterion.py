from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calr_cli.clustering.criterion import label_criterion
from calr_cli.distances import knn
from calr_cli.types import OUTLIER, IntArray, Neighbours
from tests.support import oracles
from tests.support.features import unit_features


def neighbours_of(rows: list[list[int]]) -> Neighbours:
    """How similar they are does not count."""
    return Neighbours(np.array(rows), np.ones((len(rows), len(rows[0])), np.float32))


Images = tuple[Neighbours, IntArray, IntArray]


@st.composite
def images(draw: st.DrawFn) -> Images:
    """Neighbours, labels and cameras; one camera, no clusters and a single image are among them."""
    members = draw(st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 2)), min_size=1, max_size=20))
    labels, camids = (np.array(column) for column in zip(*members, strict=True))
    found = knn(unit_features(draw(st.integers(0, 2**32)), len(members), 3), draw(st.integers(1, 8)))
    return found, labels, camids


@settings(deadline=None, max_examples=150)
@given(images())
def test_equals_the_oracle(made_up: Images) -> None:
    found, labels, camids = made_up
    expected = float(oracles.label_criterion(found.indices, labels.tolist(), camids.tolist()))
    assert label_criterion(found, labels, camids) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=80)
@given(made_up=images(), seed=st.integers(0, 2**32))
def test_order_of_images_and_names_of_clusters_and_cameras_do_not_count(made_up: Images, seed: int) -> None:
    found, labels, camids = made_up
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    place = np.argsort(order)  # where each image has gone
    moved = Neighbours(place[found.indices[order]], found.similarities[order])
    cluster_names, camera_names = rng.permutation(4), rng.permutation(3)
    renamed = np.where(labels == OUTLIER, OUTLIER, cluster_names[labels])
    value = label_criterion(moved, renamed[order], camera_names[camids][order])
    assert value == pytest.approx(label_criterion(found, labels, camids), abs=1e-12)


def test_by_hand() -> None:
    found = neighbours_of([[0, 1, 2], [1, 0, 3], [2, 0, 4], [3, 1, 4], [4, 2, 3]])
    labels, camids = np.array([0, 0, 0, OUTLIER, OUTLIER]), np.array([0, 1, 0, 1, 0])
    # Of ten links four join two cameras. 0 -> 1 and 1 -> 0 are confirmed, 3 -> 4 and 4 -> 3 are outliers.
    # Of twelve pairs (i, j) in two cameras four are in a cluster: 0-1 and 2-1, both ways.
    assert label_criterion(found, labels, camids) == pytest.approx(2 / 10 - 4 / 10 * 4 / 12)
    # With one camera 0 -> 2 and 2 -> 0 count too, and so do all pairs within the cluster.
    assert label_criterion(found, labels, np.full(5, 7)) == pytest.approx(4 / 10 - 6 / 20)


def test_nothing_that_is_degenerate_beats_clusters_of_identities() -> None:
    # Ten people, each seen twice by three cameras, in tight heaps: all links are right.
    pids, camids = np.arange(60) // 6, np.arange(60) % 3
    heaps = unit_features(0, 10, 32)[pids] + 0.01 * unit_features(1, 60, 32)
    found = knn(heaps / np.linalg.norm(heaps, axis=1, keepdims=True), 6)
    right = label_criterion(found, pids, camids)
    assert right == pytest.approx(4 / 5 - 4 / 5 * 240 / (60 * 40))
    half = np.where(pids < 5, pids, OUTLIER)
    assert right > label_criterion(found, half, camids) > 0.3
    assert right > label_criterion(found, pids // 2, camids) > 0.3  # people merged in pairs
    degenerate = {
        "one cluster": np.zeros(60, np.int64),
        "no cluster": np.full(60, OUTLIER),
        "clusters of one image": np.arange(60),
        "clusters are cameras": camids,
        "clusters stay in a camera": pids * 3 + camids,
        "chance": np.random.default_rng(0).permutation(pids),
    }
    for name, labels in degenerate.items():
        value = label_criterion(found, labels, camids)
        # One cluster is worth what the neighbours' cameras are beyond chance, little; the rest nothing.
        assert np.isfinite(value), name
        assert value <= 0.15, name
    for name in ("no cluster", "clusters of one image", "clusters are cameras", "clusters stay in a camera"):
        assert label_criterion(found, degenerate[name], camids) == 0, name


def test_one_cluster_of_everything_is_worth_nothing() -> None:
    rng = np.random.default_rng(0)
    camids = rng.integers(0, 4, 2000)
    found = neighbours_of(rng.integers(0, 2000, (2000, 15)).tolist())  # cameras do not matter to neighbours
    assert label_criterion(found, np.zeros(2000, np.int64), camids) == pytest.approx(0, abs=0.01)
    everybody = knn(unit_features(0, 12), 12)
    assert label_criterion(everybody, np.zeros(12, np.int64), camids[:12]) == pytest.approx(0, abs=1e-12)


def test_features_that_know_people_are_worth_more_than_those_that_know_cameras() -> None:
    """With the labels that an ideal clustering of the people would give, only the neighbours get worse."""
    pids, camids = np.arange(400) // 10, np.arange(400) % 5
    people, cameras, noise = (
        unit_features(0, 40, 64)[pids],
        unit_features(1, 5, 64)[camids],
        unit_features(2, 400, 64),
    )
    values = []
    for shift in (0.0, 1.0, 2.0, 4.0):
        features = people + shift * cameras + 0.5 * noise
        found = knn(features / np.linalg.norm(features, axis=1, keepdims=True), 10)
        values.append(label_criterion(found, pids, camids))
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.8
    assert values[-1] < 0.2


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_for_a_link(count: int) -> None:
    found = Neighbours(np.zeros((count, 1), np.int64), np.ones((count, 1), np.float32))
    assert label_criterion(found, np.zeros(count, np.int64), np.zeros(count, np.int64)) == 0


def test_takes_memory_of_neighbours_not_of_pairs() -> None:
    count = 5000
    rng = np.random.default_rng(0)
    found = Neighbours(rng.integers(0, count, (count, 15)), np.ones((count, 15), np.float32))
    labels, camids = rng.integers(-1, 300, count), rng.integers(0, 6, count)
    tracemalloc.start()
    label_criterion(found, labels, camids)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < count * count / 4  # truth values of all pairs would take four times as much
