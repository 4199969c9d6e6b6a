from __future__ import annotations

import numpy as np
import pytest

from calr_cli.distances.camera_shift import standardise_by_camera
from calr_cli.distances.knn import knn
from tests.support.features import unit_features


def by_hand(features: np.ndarray, camids: np.ndarray) -> np.ndarray:
    """Number by number, in float64."""
    rows = features.astype(np.float64)
    least = 1e-3 * (rows**2).mean() ** 0.5
    result = np.zeros_like(rows)
    for i, camid in enumerate(camids):
        for d in range(rows.shape[1]):
            own = [rows[j, d] for j in range(len(rows)) if camids[j] == camid]
            mean = sum(own) / len(own)
            spread = (sum((value - mean) ** 2 for value in own) / len(own)) ** 0.5
            result[i, d] = (rows[i, d] - mean) / (spread + least)
        result[i] /= np.linalg.norm(result[i])
    return result


def test_equals_number_by_number() -> None:
    features, camids = unit_features(0, 30), np.array([4, 0, 2] * 10)
    before = features.copy()
    found = standardise_by_camera(features, camids)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(features, camids), atol=1e-5)
    assert (features == before).all()  # the features are trained on as they are


def test_what_a_camera_adds_and_multiplies_is_gone() -> None:
    """The same images seen by two cameras, one of which shifts and scales every dimension."""
    rng = np.random.default_rng(1)
    seen = rng.normal(size=(12, 6))
    other = seen * rng.uniform(0.5, 2, 6) + rng.normal(size=6)
    features = np.concatenate([seen, other]).astype(np.float32)
    found = standardise_by_camera(features, np.repeat([0, 1], 12))
    np.testing.assert_allclose(found[:12], found[12:], atol=0.02)
    nearest = knn(found, 2).indices
    assert all({i, i + 12} == set(nearest[i]) for i in range(12))


def test_a_camera_s_order_and_number_do_not_matter() -> None:
    features, camids = unit_features(2, 20), np.arange(20) % 3
    order = np.random.default_rng(0).permutation(20)
    found = standardise_by_camera(features, camids)
    assert (standardise_by_camera(features, 7 - camids) == found).all()
    np.testing.assert_allclose(standardise_by_camera(features[order], camids[order]), found[order], atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_cameras_of_few_images(count: int) -> None:
    features = unit_features(3, 10 + count)
    found = standardise_by_camera(features, np.repeat([0, 1], [10, count]))
    lengths = np.linalg.norm(found, axis=1)
    np.testing.assert_allclose(lengths, [1] * 10 + [count > 1] * count, atol=1e-6)
    if count == 2:  # two images differ from their mean in opposite ways
        np.testing.assert_allclose(found[10], -found[11], atol=1e-6)


def test_a_dimension_that_hardly_varies_counts_for_little() -> None:
    """Else rounding in it would count as much as what tells images apart."""
    features = unit_features(4, 40).copy()
    features[:, 0] = 0.5 + 1e-7 * np.arange(40)
    found = standardise_by_camera(features, np.zeros(40, np.int64))
    assert np.abs(found[:, 0]).max() < 0.02


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_features_that_are_all_alike_become_0(value: float) -> None:
    found = standardise_by_camera(np.full((6, 4), value, np.float32), np.arange(6) % 2)
    assert (found == 0).all()
