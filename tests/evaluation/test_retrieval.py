from __future__ import annotations

import numpy as np
import pytest
import torch

from calr_cli.distances.rerank import euclidean_squared
from calr_cli.errors import DataError
from calr_cli.evaluation import ranking_metrics, retrieval, retrieval_metrics
from tests.support.features import unit_features


def test_golden(golden: dict[str, np.ndarray]) -> None:
    query, gallery = golden["query"], golden["gallery"]
    features, pids, camids = golden["features"], golden["identity"], golden["camera"]
    metrics = retrieval_metrics(
        features[query], features[gallery], pids[query], pids[gallery], camids[query], camids[gallery]
    )
    assert metrics.mAP == pytest.approx(float(golden["map"]), abs=1e-5)
    np.testing.assert_allclose(metrics.cmc[:10], golden["cmc_top10"], atol=1e-5)


@pytest.mark.parametrize("rows_per_block", [0, 1, 7, 29, 30, 1000])
def test_equals_the_matrix_path_whatever_the_block(
    monkeypatch: pytest.MonkeyPatch, rows_per_block: int
) -> None:
    rng = np.random.default_rng(0)
    features, pids, camids = unit_features(0, 100, 12), rng.integers(0, 8, 100), rng.integers(0, 4, 100)
    ids = pids[:30], pids[30:], camids[:30], camids[30:]
    expected = ranking_metrics(euclidean_squared(features[:30], features[30:]), *ids)
    monkeypatch.setattr(retrieval, "_BLOCK_BYTES", 4 * 70 * rows_per_block)
    found = retrieval_metrics(features[:30], torch.from_numpy(features[30:]), *ids)
    assert found.mAP == pytest.approx(expected.mAP, abs=1e-9)
    np.testing.assert_array_equal(found.cmc, expected.cmc)
    assert found.num_queries == expected.num_queries


def test_features_that_do_not_fit_are_named() -> None:
    features = unit_features(0, 6, 4)
    ids = [1, 2], [1, 2, 2, 1], [0, 0], [1, 1, 1, 1]
    retrieval_metrics(features[:2], features[2:], *ids)
    with pytest.raises(DataError, match=r"^q_pids has shape \(2,\), but there are 3 queries$"):
        retrieval_metrics(features[:3], features[2:], *ids)
    with pytest.raises(DataError, match=r"^queries have 4 dimensions, the gallery has 3$"):
        retrieval_metrics(features[:2], features[2:, :3], *ids)
    features[4] = np.nan
    with pytest.raises(DataError, match=r"^the features of image 2 are not all finite numbers\. "):
        retrieval_metrics(features[:2], features[2:], *ids)
