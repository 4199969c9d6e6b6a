from __future__ import annotations

import numpy as np
import pytest

from calr_cli.errors import DataError
from calr_cli.report.projection import feature_map
from tests.support.features import unit_features


def test_neighbours_stay_neighbours() -> None:
    centres = np.repeat(unit_features(1, 3, 16), 20, axis=0)
    features = (centres + 0.01 * unit_features(2, 60, 16)).astype(np.float32)
    found = feature_map(features, 60, np.random.default_rng(0))
    group = found.images // 20
    distances = np.linalg.norm(found.points[:, None] - found.points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (group[distances.argmin(axis=1)] == group).all()


def test_a_sample_is_drawn_once_and_the_same_again() -> None:
    features = unit_features(0, 50, 4)
    one, two = (feature_map(features, 20, np.random.default_rng(5)) for _ in range(2))
    assert len(np.unique(one.images)) == 20
    np.testing.assert_array_equal(one.points, two.points)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (unit_features(0, 9, 4), "9 images are too few"),
        (np.ones((30, 4), np.float32), "the features of all images are the same"),
    ],
)
def test_what_cannot_be_mapped(features: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        feature_map(features, 20, np.random.default_rng(0))
