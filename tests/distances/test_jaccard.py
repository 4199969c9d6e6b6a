from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calr_cli.distances import jaccard_distance
from calr_cli.distances.k_reciprocal import expanded_sets, half_size, reciprocal_sets
from calr_cli.errors import DataError
from tests.support import oracles
from tests.support.features import separated_features, unit_features


@pytest.mark.parametrize(("k1", "k2"), [(15, 4), (30, 6), (20, 1)])
def test_golden(golden: dict[str, np.ndarray], k1: int, k2: int) -> None:
    expected = golden[f"jaccard_{k1}_{k2}"]
    assert 0 < expected.mean() < 1  # the stored triangle was really unfolded
    np.testing.assert_allclose(jaccard_distance(golden["features"], k1, k2), expected, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 26), k1=st.integers(1, 30), k2=st.integers(1, 9))
def test_equals_the_oracle(seed: int, count: int, k1: int, k2: int) -> None:
    features = separated_features(seed, count, dimensions=4)
    expected = oracles.jaccard_distance(features, k1, k2)
    np.testing.assert_allclose(jaccard_distance(features, k1, k2), expected, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32), count=st.integers(2, 40), k1=st.integers(1, 20))
def test_expanded_sets_equal_the_oracle(seed: int, count: int, k1: int) -> None:
    # Any ranking will do: far more awkward ones than features can make.
    rng = np.random.default_rng(seed)
    ranking = np.array([[i, *rng.permutation(np.delete(np.arange(count), i))] for i in range(count)])
    half = round(k1 / 2) + 1
    assert half_size(k1) == half
    reciprocal, expanded = reciprocal_sets(ranking, k1), expanded_sets(ranking, k1, half)
    lists = ranking.tolist()
    for i in range(count):
        assert set(reciprocal[[i]].nonzero()[1]) == oracles.reciprocal_set(lists, i, k1)
        assert set(expanded[[i]].nonzero()[1]) == oracles.expanded_set(lists, i, k1, half)


def test_half_is_rounded_to_even() -> None:
    assert [half_size(k) for k in (1, 2, 3, 4, 5, 15, 20, 25, 30)] == [1, 2, 3, 3, 3, 9, 11, 13, 16]


def test_by_hand() -> None:
    # Two pairs far apart, k1 = 2: each set is the pair itself, each row its softmax.
    features = np.array([[1, 0], [0.8, 0.6], [-1, 0], [-0.8, -0.6]])
    self_weight = 1 / (1 + np.exp(-0.4))  # squared distance within a pair: 2 - 2 * 0.8
    shared = 2 * (1 - self_weight)
    within = 1 - shared / (2 - shared)
    expected = [[0, within, 1, 1], [within, 0, 1, 1], [1, 1, 0, within], [1, 1, within, 0]]
    np.testing.assert_allclose(jaccard_distance(features, 2, 1), expected, atol=1e-6)
    # k2 = 2 averages the two rows of a pair: they become equal.
    np.testing.assert_allclose(jaccard_distance(features, 2, 2)[0], [0, 0, 1, 1], atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32), count=st.integers(2, 40))
def test_is_a_distance_matrix_that_follows_a_permutation(seed: int, count: int) -> None:
    features = separated_features(seed, count)
    distances = jaccard_distance(features, 8, 3)
    assert distances.dtype == np.float32
    assert (distances == distances.T).all()
    assert (np.diag(distances) == 0).all()
    assert distances.min() >= 0
    assert distances.max() <= 1
    order = np.random.default_rng(seed).permutation(count)
    np.testing.assert_allclose(
        jaccard_distance(features[order], 8, 3), distances[np.ix_(order, order)], atol=1e-6
    )


@pytest.mark.parametrize("count", [0, 1, 2, 22])
def test_small_cameras_and_one_image_many_times(count: int) -> None:
    # VeRi's camera 20 has 22 images with k1 = 15; a collapsed network answers one feature for all.
    alike = np.tile(np.array([[0.6, 0.8]], np.float32), (count, 1))
    for features in (unit_features(0, count), alike):
        distances = jaccard_distance(features, 15, 4)
        assert distances.shape == (count, count)
        assert np.isfinite(distances).all()
    np.testing.assert_array_equal(
        jaccard_distance(unit_features(0, count), 30, 6), jaccard_distance(unit_features(0, count), 300, 6)
    )


def test_takes_tensors_and_refuses_nan() -> None:
    features = unit_features(0, 20)
    np.testing.assert_array_equal(
        jaccard_distance(torch.from_numpy(features), 5, 2), jaccard_distance(features, 5, 2)
    )
    features[7] = np.nan
    with pytest.raises(DataError, match=r"^the features of image 7 are not all finite numbers"):
        jaccard_distance(features, 5, 2)
