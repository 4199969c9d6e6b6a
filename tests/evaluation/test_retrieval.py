from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calr_cli.distances.euclidean import distance_blocks
from calr_cli.errors import DataError
from calr_cli.evaluation import ranking_metrics, retrieval_metrics
from tests.support.features import unit_features


def test_golden(golden: dict[str, np.ndarray]) -> None:
    query, gallery = golden["query"], golden["gallery"]
    features, pids, camids = golden["features"], golden["identity"], golden["camera"]
    metrics = retrieval_metrics(
        features[query], features[gallery], pids[query], pids[gallery], camids[query], camids[gallery]
    )
    assert metrics.mAP == pytest.approx(float(golden["map"]), abs=1e-5)
    np.testing.assert_allclose(metrics.cmc[:10], golden["cmc_top10"], atol=1e-5)


def squared_euclidean(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return ((left[:, None].astype(np.float64) - right[None]) ** 2).sum(axis=2)


@pytest.mark.parametrize("rows_per_block", [0, 1, 7, 29, 30, 1000])
def test_equals_the_matrix_path_whatever_the_block(rows_per_block: int) -> None:
    rng = np.random.default_rng(0)
    features, pids, camids = unit_features(0, 100, 12), rng.integers(0, 8, 100), rng.integers(0, 4, 100)
    ids = pids[:30], pids[30:], camids[:30], camids[30:]
    expected = ranking_metrics(squared_euclidean(features[:30], features[30:]), *ids)
    found = retrieval_metrics(
        features[:30], torch.from_numpy(features[30:]), *ids, block_bytes=4 * 70 * rows_per_block
    )
    assert found.mAP == pytest.approx(expected.mAP, abs=1e-9)
    assert found.mINP == pytest.approx(expected.mINP, abs=1e-9)
    np.testing.assert_array_equal(found.cmc, expected.cmc)
    np.testing.assert_array_equal(found.first_match, expected.first_match)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32), queries=st.integers(1, 9), gallery=st.integers(1, 30))
def test_distances_are_right_to_the_sixth_digit(seed: int, queries: int, gallery: int) -> None:
    features = torch.from_numpy(unit_features(seed, queries + gallery, 16))
    found = torch.cat([*distance_blocks(features[:queries], features[queries:])])
    expected = squared_euclidean(features[:queries].numpy(), features[queries:].numpy())
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_image_has_no_negative_distance_to_itself() -> None:
    features = torch.from_numpy(unit_features(7, 30)) * 100  # large norms cancel badly
    assert torch.cat([*distance_blocks(features, features)]).min() >= 0


def test_features_stay_as_they_are_and_may_be_read_only() -> None:
    features = unit_features(1, 10)
    before = features.copy()
    features.flags.writeable = False
    ids = [0, 1] * 2, [0, 1] * 3, [0] * 4, [1] * 6
    retrieval_metrics(features[:4], features[4:], *ids)
    np.testing.assert_array_equal(features, before)


def test_features_that_do_not_fit_are_named() -> None:
    features = unit_features(0, 6, 4)
    ids = [1, 2], [1, 2, 2, 1], [0, 0], [1, 1, 1, 1]
    retrieval_metrics(features[:2], features[2:], *ids)
    with pytest.raises(DataError, match=r"^q_pids has shape \(2,\), but there are 3 queries$"):
        retrieval_metrics(features[:3], features[2:], *ids)
    with pytest.raises(DataError, match=r"^queries have 4 dimensions, the gallery has 3$"):
        retrieval_metrics(features[:2], features[2:, :3], *ids)
    features[4] = np.nan
    with pytest.raises(DataError, match=r"^the features of gallery image 2 are not all finite numbers\. "):
        retrieval_metrics(features[:2], features[2:], *ids)
    with pytest.raises(DataError, match=r"^the features of query 1 are not all finite numbers\. "):
        retrieval_metrics(features[3:5], features[:3], [1, 2], [1, 2, 2], [0, 0], [1, 1, 1])
    with pytest.raises(DataError, match=r"^features have shape \(4,\), expected \(images, dimensions\)$"):
        retrieval_metrics(features[0], features[:3], [1], [1, 2, 2], [0], [1, 1, 1])


def test_an_empty_split_is_said() -> None:
    features = unit_features(0, 3, 4)
    with pytest.raises(DataError, match=r"^0 queries and 3 gallery images: nothing to rank$"):
        retrieval_metrics(features[:0], features, [], [1, 2, 2], [], [1, 1, 1])
    with pytest.raises(DataError, match=r"^3 queries and 0 gallery images: nothing to rank$"):
        retrieval_metrics(features, features[:0], [1, 2, 2], [], [1, 1, 1], [])


@pytest.mark.gpu
def test_a_gpu_gives_the_same() -> None:
    rng = np.random.default_rng(0)
    features, pids, camids = unit_features(0, 400, 32), rng.integers(0, 30, 400), rng.integers(0, 4, 400)
    ids = pids[:100], pids[100:], camids[:100], camids[100:]
    expected = retrieval_metrics(features[:100], features[100:], *ids)
    on_gpu = torch.from_numpy(features).cuda()
    found = retrieval_metrics(on_gpu[:100], on_gpu[100:], *ids)
    np.testing.assert_allclose(found.average_precision, expected.average_precision, atol=1e-3)
    assert found.mAP == pytest.approx(expected.mAP, abs=1e-5)
