from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calr_cli.distances import rerank_distance
from calr_cli.distances.euclidean import distance_blocks
from calr_cli.distances.rerank import rerank_blocks
from calr_cli.errors import MemoryLimitError
from calr_cli.evaluation import ranking_metrics
from tests.support import oracles
from tests.support.features import separated_features, unit_features


def test_golden(golden: dict[str, np.ndarray]) -> None:
    query, gallery = golden["query"], golden["gallery"]
    features, pids, camids = golden["features"], golden["identity"], golden["camera"]
    distances = rerank_distance(features[query], features[gallery])
    np.testing.assert_allclose(distances, golden["rerank_distance_20_6_0.3"], atol=1e-5)
    metrics = ranking_metrics(distances, pids[query], pids[gallery], camids[query], camids[gallery])
    assert metrics.mAP == pytest.approx(float(golden["rerank_map"]), abs=1e-5)
    np.testing.assert_allclose(metrics.cmc[:10], golden["rerank_cmc_top10"], atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    queries=st.integers(1, 8),
    gallery=st.integers(1, 20),
    k1=st.integers(1, 25),
    k2=st.integers(1, 8),
    lambda_value=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_equals_the_oracle(
    seed: int, queries: int, gallery: int, k1: int, k2: int, lambda_value: float
) -> None:
    features = separated_features(seed, queries + gallery, dimensions=4)
    features *= np.random.default_rng(seed).uniform(0.5, 2)  # unit length is not asked for
    args = (features[:queries], features[queries:], k1, k2, lambda_value)
    np.testing.assert_allclose(rerank_distance(*args), oracles.rerank_distance(*args), atol=2e-5)


@pytest.mark.parametrize("rows_per_block", [1, 7, 40])
def test_blocks_make_no_difference(rows_per_block: int) -> None:
    features = unit_features(5, 40)
    expected = rerank_distance(features[:12], features[12:], 7, 3)
    blocks = list(rerank_blocks(features[:12], features[12:], 7, 3, 0.3, block_bytes=4 * 28 * rows_per_block))
    assert [len(block) for block in blocks[:-1]] == [rows_per_block] * (len(blocks) - 1)
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-6)


@pytest.mark.parametrize(("queries", "gallery"), [(0, 4), (3, 0), (0, 0)])
def test_an_empty_split_gives_an_empty_matrix(queries: int, gallery: int) -> None:
    features = unit_features(3, queries + gallery, 5)
    assert rerank_distance(features[:queries], features[queries:]).shape == (queries, gallery)


def test_what_cannot_fit_is_refused_before_the_work() -> None:
    features = unit_features(3, 1000)
    with pytest.raises(MemoryLimitError, match=r"^a dense matrix of 100 x 900 distances would take 0\.4 MB"):
        rerank_distance(features[:100], features[100:], memory_limit=100_000)


def test_lambda_one_is_the_distance_squared_over_the_query_s_largest() -> None:
    # By hand: squared distances of the query are 2 and 4, squared 4 and 16, over 16.
    distances = rerank_distance([[1.0, 0.0]], [[0.0, 1.0], [-1.0, 0.0]], 2, 1, 1.0)
    np.testing.assert_allclose(distances, [[0.25, 1.0]], atol=1e-6)


def test_one_image_many_times_has_distance_zero_not_nan() -> None:
    alike = np.full((6, 3), 0.5, np.float32)
    assert np.isfinite(rerank_distance(alike[:2], alike[2:])).all()


def test_takes_tensors_and_leaves_them_alone() -> None:
    features = torch.from_numpy(unit_features(6, 20))
    before = features.clone()
    np.testing.assert_array_equal(
        rerank_distance(features[:5], features[5:]),
        rerank_distance(features[:5].numpy(), features[5:].numpy()),
    )
    assert torch.equal(features, before)


def test_squared_distance_is_never_negative() -> None:
    features = unit_features(7, 30) * 100  # large norms cancel badly
    rows = torch.from_numpy(features)
    distances = torch.cat([*distance_blocks(rows, rows)]).numpy()
    assert distances.min() >= 0
    expected = oracles.squared_distances(features)
    np.testing.assert_allclose(distances, expected, atol=1e-2, rtol=1e-4)
