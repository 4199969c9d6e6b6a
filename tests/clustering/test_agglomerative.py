from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_rand_score, silhouette_score

from calr_cli.clustering import agglomerative_labels
from calr_cli.clustering.agglomerative import agglomerative_partitions, best_by_silhouette, silhouette
from calr_cli.distances import jaccard_distance
from tests.support import oracles


def symmetric(values: np.ndarray) -> np.ndarray:
    upper = np.triu(values.astype(np.float32), 1)
    return upper + upper.T


def test_golden_partitions_of_every_camera(golden: dict[str, np.ndarray]) -> None:
    for camera in np.unique(golden["camera"]):
        features = golden["features"][golden["camera"] == camera]
        labels = agglomerative_labels(jaccard_distance(features, 15, 4), len(features) // 5)
        assert adjusted_rand_score(golden[f"local_cam{camera}"], labels) == 1.0
        assert len(np.unique(labels)) == len(features) // 5


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 13), levels=st.integers(1, 6), data=st.data())
def test_ties_go_to_the_lowest_smallest_members(
    seed: int, count: int, levels: int, data: st.DataObject
) -> None:
    # Few levels: nearly every merge has a tie, also between averages that rounding would tell apart
    # (thirds and sevenths), and the farthest pairs are all exactly 1, as Jaccard's are.
    distmat = symmetric(np.random.default_rng(seed).integers(0, levels + 1, (count, count)) / levels)
    num_clusters = data.draw(st.integers(1, count))
    expected = oracles.agglomerate(distmat.tolist(), num_clusters)
    assert agglomerative_labels(distmat, num_clusters).tolist() == expected


def test_ties_by_hand() -> None:
    # All at distance 1: the lowest pair merges, then image 2 joins it, and so on.
    ones = symmetric(np.ones((5, 5)))
    assert [agglomerative_labels(ones, k).tolist() for k in (5, 4, 3, 2, 1)] == [
        [0, 1, 2, 3, 4],
        [0, 0, 1, 2, 3],
        [0, 0, 0, 1, 2],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0],
    ]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 12), levels=st.integers(1, 6), data=st.data())
def test_one_hierarchy_is_cut_as_several_are(seed: int, count: int, levels: int, data: st.DataObject) -> None:
    distmat = symmetric(np.random.default_rng(seed).integers(0, levels + 1, (count, count)) / levels)
    counts = data.draw(st.lists(st.integers(1, count), min_size=1, max_size=5))  # in any order, or twice
    found = agglomerative_partitions(distmat, counts)
    assert [labels.tolist() for labels in found] == [oracles.agglomerate(distmat.tolist(), n) for n in counts]
    assert {labels.dtype for labels in found} == {np.dtype(np.int64)}


def test_the_best_silhouette_is_chosen_and_of_equals_the_first() -> None:
    rng = np.random.default_rng(0)
    points = np.repeat(rng.normal(size=(6, 3)), 5, axis=0) + 0.01 * rng.normal(size=(30, 3))
    distmat = symmetric(np.linalg.norm(points[:, None] - points, axis=2) / 10)
    labels, score = best_by_silhouette(distmat, [15, 10, 6, 3, 2])
    assert (labels == np.repeat(np.arange(6), 5)).all()
    assert score == silhouette(distmat, labels) > 0.9
    for counts in ([30, 1], [1, 30]):  # both are worth 0
        labels, score = best_by_silhouette(distmat, counts)
        assert (labels.max() + 1, score) == (counts[0], 0.0)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), count=st.integers(2, 40), data=st.data())
def test_equals_scipy_where_nothing_ties(seed: int, count: int, data: st.DataObject) -> None:
    distmat = symmetric(np.random.default_rng(seed).random((count, count)))
    num_clusters = data.draw(st.integers(1, count))
    tree = linkage(squareform(distmat.astype(np.float64), checks=False), "average")
    expected = fcluster(tree, num_clusters, "maxclust")
    assert adjusted_rand_score(expected, agglomerative_labels(distmat, num_clusters)) == 1.0


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), count=st.integers(2, 30), data=st.data())
def test_as_many_clusters_as_asked_numbered_by_smallest_member(
    seed: int, count: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    distmat = symmetric(np.where(rng.random((count, count)) < 0.7, 1.0, rng.random((count, count))))
    num_clusters = data.draw(st.integers(1, count))
    before = distmat.copy()
    labels = agglomerative_labels(distmat, num_clusters)
    assert labels.dtype == np.int64
    first_seen = list(dict.fromkeys(labels.tolist()))
    assert first_seen == list(range(num_clusters))
    assert (distmat == before).all()  # the caller's matrix is left alone
    assert (agglomerative_labels(torch.from_numpy(distmat), num_clusters) == labels).all()


@pytest.mark.parametrize("num_clusters", [0, -1, 4])
def test_impossible_numbers_of_clusters(num_clusters: int) -> None:
    with pytest.raises(ValueError, match=rf"^num_clusters is {num_clusters}, expected 1\.\.3$"):
        agglomerative_labels(np.zeros((3, 3)), num_clusters)
    with pytest.raises(ValueError, match=rf"^num_clusters is {num_clusters}, "):
        agglomerative_partitions(np.zeros((3, 3)), [2, num_clusters])


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), count=st.integers(2, 14), clusters=st.integers(1, 8))
def test_silhouette_equals_the_oracle(seed: int, count: int, clusters: int) -> None:
    rng = np.random.default_rng(seed)
    distmat = symmetric(rng.random((count, count)).round(1))
    labels = rng.integers(0, clusters, count)  # singletons are common
    expected = oracles.silhouette(distmat, labels.tolist())
    assert silhouette(distmat, labels) == pytest.approx(expected, abs=1e-6)
    if 1 < len(set(labels)) < count:
        assert silhouette(distmat, labels) == pytest.approx(
            silhouette_score(distmat, labels, metric="precomputed"), abs=1e-6
        )


def test_silhouette_by_hand() -> None:
    # The pair: (0.8 - 0.2) / 0.8 each; the singleton counts 0.
    distmat = np.array([[0, 0.2, 0.8], [0.2, 0, 0.8], [0.8, 0.8, 0]], np.float32)
    assert silhouette(distmat, np.array([0, 0, 1])) == pytest.approx((0.75 + 0.75 + 0) / 3)


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_silhouette_of_one_cluster_or_of_singletons_is_0(labels: list[int]) -> None:
    assert silhouette(symmetric(np.ones((3, 3))), np.array(labels)) == 0.0


def test_silhouette_of_a_collapsed_network_is_a_number() -> None:
    assert silhouette(np.zeros((4, 4), np.float32), np.array([0, 0, 1, 1])) == 0.0
