from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calr_cli.clustering import neighbourhood_scores, select_pivots
from calr_cli.clustering.pivots import PivotRule
from calr_cli.distances import knn
from calr_cli.types import Neighbours
from tests.support import oracles
from tests.support.features import unit_features


@pytest.mark.parametrize("min_similarity", [0.5, 0.6])
def test_golden_scores_and_pivots(golden: dict[str, np.ndarray], min_similarity: float) -> None:
    prefix = f"s{min_similarity * 100:.0f}"
    scores = neighbourhood_scores(knn(golden["features"], 15), min_similarity)
    np.testing.assert_allclose(scores, golden[f"{prefix}_score"], atol=1e-5, rtol=1e-5)
    labels = golden[f"{prefix}_global_label"]
    for rule in ("best", "last"):
        np.testing.assert_array_equal(select_pivots(labels, scores, rule), golden[f"{prefix}_pivot_{rule}"])


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(2, 30),
    k=st.integers(1, 12),
    min_similarity=st.sampled_from([-1.0, 0.0, 0.5, 0.9]),
)
def test_scores_equal_the_oracle(seed: int, count: int, k: int, min_similarity: float) -> None:
    neighbours = knn(unit_features(seed, count, 3), k)
    expected = oracles.neighbourhood_scores(neighbours.indices, neighbours.similarities, min_similarity)
    if k > 1:  # with k = 1 all distances are rounding around 0 and nobody has a link
        np.testing.assert_allclose(
            neighbourhood_scores(neighbours, min_similarity), expected, rtol=1e-4, atol=1e-5
        )
    else:
        assert (neighbourhood_scores(neighbours, min_similarity) == 0).all()


def test_scores_by_hand() -> None:
    neighbours = Neighbours(
        np.array([[0, 1], [1, 0], [2, 0]]), np.array([[1, 0.75], [1, 0.75], [1, 0.25]], np.float32)
    )
    mean = (0.25 + 0.25 + 0.75) / 6
    expected = [1 / (0.25 + mean), 1 / (0.25 + mean), 0]  # the third is an isolate at .5
    np.testing.assert_allclose(neighbourhood_scores(neighbours, 0.5), expected, rtol=1e-6)


def test_a_collapsed_network_has_no_pivots_and_no_warning() -> None:
    # All features the same, similarities a little above 1 by rounding: nothing stands out.
    alike = Neighbours(
        np.tile(np.arange(6), (6, 1)), np.full((6, 6), np.nextafter(np.float32(1), np.float32(2)))
    )
    scores = neighbourhood_scores(alike, 0.5)
    assert select_pivots(np.zeros(6, np.int64), scores).tolist() == [-1]


@settings(deadline=None, max_examples=100)
@given(
    labels=st.lists(st.integers(-1, 4), min_size=1, max_size=20),
    seed=st.integers(0, 2**32),
    rule=st.sampled_from(["best", "last"]),
)
def test_pivots_equal_the_oracle_with_many_equal_scores(
    labels: list[int], seed: int, rule: PivotRule
) -> None:
    scores = np.random.default_rng(seed).integers(0, 4, len(labels)).astype(np.float64)
    pivots = select_pivots(np.array(labels), scores, rule)
    assert pivots.tolist() == oracles.pivots(labels, scores.tolist(), rule)
    for cluster, pivot in enumerate(pivots.tolist()):
        assert pivot == -1 or labels[pivot] == cluster


def test_pivots_by_hand() -> None:
    labels = np.array([1, 1, 1, 0, 0, -1, 2])
    scores = np.array([3.0, 4.0, 4.0, 1.0, 3.5, 2.5, 0.0])  # the mean over ALL images is 18/7 = 2.57
    assert select_pivots(labels, scores).tolist() == [4, 1, -1]  # the first of two equals
    assert select_pivots(labels, scores, "last").tolist() == [4, 2, -1]
    assert select_pivots(torch.from_numpy(labels), torch.from_numpy(scores)).tolist() == [4, 1, -1]
    assert select_pivots(labels.tolist(), scores.tolist()).tolist() == [4, 1, -1]


def test_a_score_at_the_mean_is_not_above_it() -> None:
    assert select_pivots(np.array([0, 0, 1]), np.array([2.0, 2.0, 2.0])).tolist() == [-1, -1]


def test_no_clusters_have_no_pivots() -> None:
    assert select_pivots(np.array([-1, -1]), np.array([1.0, 2.0])).tolist() == []
