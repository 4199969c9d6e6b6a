from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calr_cli.distances import jaccard_distance, jaccard_similarity, k_reciprocal, knn
from calr_cli.distances.k_reciprocal import expanded_sets, half_size, reciprocal_sets
from calr_cli.errors import DataError, MemoryLimitError
from calr_cli.types import Neighbours
from tests.support import oracles
from tests.support.features import separated_features, unit_features
from tests.support.heard import Heard


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


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 40),
    k1=st.integers(1, 12),
    k2=st.integers(1, 5),
    smallest=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_similarity_is_what_the_distance_leaves(
    seed: int, count: int, k1: int, k2: int, smallest: float
) -> None:
    features = separated_features(seed, count)
    similarity = jaccard_similarity(features, k1, k2, min_similarity=smallest)
    distances = jaccard_distance(features, k1, k2)
    expected = 1 - distances
    np.fill_diagonal(expected, 0)
    assert similarity.dtype == np.float32
    assert similarity.has_sorted_indices
    assert (similarity.data > 0).all()
    assert (similarity.data >= smallest - 1e-6).all()
    clear = abs(expected - smallest) > 1e-5  # the others may fall on either side
    dense = similarity.toarray()
    np.testing.assert_allclose(dense[clear], np.where(expected >= smallest, expected, 0)[clear], atol=1e-6)
    assert (dense == dense.T).all()
    if not smallest:
        shared = (distances < 1) & ~np.eye(count, dtype=bool)
        assert similarity.nnz >= shared.sum()  # a distance can round to 1


@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_and_threads_make_no_difference(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    features = unit_features(3, 200, 8)
    expected = jaccard_similarity(features, 20, 6)
    before = torch.get_num_threads()
    monkeypatch.setattr(k_reciprocal, "_BLOCK_ENTRIES", 1000)
    torch.set_num_threads(threads)
    try:
        again = jaccard_similarity(features, 20, 6)
    finally:
        torch.set_num_threads(before)
    assert (again.indptr == expected.indptr).all()
    assert (again.indices == expected.indices).all()
    assert (again.data == expected.data).all()


def test_known_neighbours_are_used_and_give_the_same() -> None:
    features = unit_features(4, 120, 8)
    found = knn(features, 40)
    np.testing.assert_allclose(
        jaccard_distance(features, 20, 6, neighbours=found), jaccard_distance(features, 20, 6), atol=1e-6
    )
    # Other similarities give other weights: they were not computed again.
    halved = Neighbours(found.indices, found.similarities / 2)
    assert (
        abs(jaccard_distance(features, 20, 6, neighbours=halved) - jaccard_distance(features, 20, 6)).max()
        > 0.01
    )


def test_pairs_are_counted_and_refused_before_they_are_made() -> None:
    features = unit_features(5, 400, 4)
    pairs = jaccard_similarity(features, 20, 6).nnz
    heard = Heard()
    assert jaccard_similarity(features, 20, 6, memory_limit=8 * pairs, reporter=heard).nnz == pairs
    assert heard.notes == [
        f"Jaccard: {pairs / 400:,.0f} pairs an image share a neighbour, {8 * pairs / 1e6:.1f} MB"
    ]
    with pytest.raises(
        MemoryLimitError, match=rf"^{pairs:,} pairs of 400 images would take .*Raise memory_limit_gb"
    ):
        jaccard_similarity(features, 20, 6, memory_limit=8 * pairs - 1)
    with pytest.raises(MemoryLimitError, match=r"^a dense matrix of 400 x 400 distances would take 0\.6 MB"):
        jaccard_distance(features, 20, 6, memory_limit=4 * 400**2 - 1)


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
