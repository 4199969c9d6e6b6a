from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.cluster import DBSCAN

from calr_cli.clustering.dbscan import dbscan_labels
from calr_cli.distances import jaccard_distance, jaccard_similarity
from tests.support.features import separated_features


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 60),
    eps=st.floats(0.2, 0.9),
    min_samples=st.integers(1, 6),
)
def test_equals_dbscan_on_the_dense_distances(seed: int, count: int, eps: float, min_samples: int) -> None:
    features = separated_features(seed, count, 3)
    distances = jaccard_distance(features, 8, 3)
    if (abs(distances - eps) < 1e-5).any():
        return  # rounding would decide
    similarity = jaccard_similarity(features, 8, 3, min_similarity=1 - eps)
    labels = dbscan_labels(similarity, eps, min_samples)
    expected = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(distances)
    assert labels.tolist() == expected.tolist()
    whole = dbscan_labels(jaccard_similarity(features, 8, 3), eps, min_samples)
    assert whole.tolist() == expected.tolist()


@pytest.mark.parametrize("count", [0, 1, 5])
def test_nothing_near_is_all_outliers(count: int) -> None:
    assert dbscan_labels(sparse.csr_array((count, count), dtype=np.float32), 0.5).tolist() == [-1] * count


def test_duplicates_by_hand() -> None:
    # Four of one image, at distance 0, and one at .3 from all of them: four make a core, itself counted.
    similarity = np.full((5, 5), 1, np.float32)
    similarity[4], similarity[:, 4] = 0.7, 0.7
    np.fill_diagonal(similarity, 0)
    assert dbscan_labels(sparse.csr_array(similarity), 0.2).tolist() == [0, 0, 0, 0, -1]
    assert dbscan_labels(sparse.csr_array(similarity), 0.4).tolist() == [0, 0, 0, 0, 0]
    assert dbscan_labels(sparse.csr_array(similarity), 0.2, min_samples=5).tolist() == [-1] * 5
