from __future__ import annotations

import numpy as np

from calr_cli.clustering.centroids import cluster_centroids
from tests.support.features import unit_features


def test_by_hand_outliers_left_out() -> None:
    features = np.array([[1, 0], [0, 1], [0, 1], [-1, 0]], np.float32)
    centroids = cluster_centroids(features, np.array([1, 1, 0, -1]))
    np.testing.assert_allclose(centroids, [[0, 1], [np.sqrt(0.5), np.sqrt(0.5)]], atol=1e-7)
    assert centroids.dtype == np.float32


def test_is_the_normalised_mean_of_each_cluster() -> None:
    features = unit_features(0, 60, 16)
    labels = np.random.default_rng(0).integers(-1, 7, 60)
    means = np.array([features[labels == k].astype(np.float64).mean(axis=0) for k in range(7)])
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(cluster_centroids(features, labels), expected, atol=1e-6)


def test_no_clusters_and_opposite_members_give_no_nan() -> None:
    assert cluster_centroids(unit_features(0, 3, 4), np.full(3, -1)).shape == (0, 4)
    opposite = np.array([[1, 0], [-1, 0]], np.float32)
    assert np.isfinite(cluster_centroids(opposite, np.zeros(2, np.int64))).all()
