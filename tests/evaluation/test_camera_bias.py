"""How far neighbours and clusters follow cameras."""

from __future__ import annotations

import numpy as np
import pytest

from calr_cli.distances.knn import knn
from calr_cli.evaluation.camera_bias import camera_bias
from calr_cli.types import OUTLIER, Neighbours
from tests.support.features import unit_features

CAMIDS = np.arange(200) % 2


def test_by_hand() -> None:
    """Nearest: 1 (same camera), 0 (same), 0 (another); an image may come after its equal."""
    near = Neighbours(np.array([[1, 0], [1, 0], [2, 0]]), np.ones((3, 2), np.float32))
    found = camera_bias(near, np.array([0, 0, 1]))
    assert found is not None
    assert (found.same_camera, found.same_camera_by_chance) == (2 / 3, 2 / 6)
    assert str(found) == "67 % of nearest neighbours are of the same camera (by chance 33 %)"


@pytest.mark.parametrize(("strength", "low", "high"), [(0.0, -0.02, 0.02), (3.0, 0.5, 1.0)])
def test_clusters_that_follow_cameras(strength: float, low: float, high: float) -> None:
    rows = unit_features(0, 200)
    rows[:, 0] += strength * CAMIDS
    labels = (rows[:, 0] > np.median(rows[:, 0])).astype(np.int64)
    labels[:3] = OUTLIER
    found = camera_bias(knn(rows / np.linalg.norm(rows, axis=1, keepdims=True), 3), CAMIDS, labels)
    assert found is not None
    assert found.nmi is not None
    assert found.nmi_by_chance is not None
    assert low < found.nmi - found.nmi_by_chance <= high


def test_small_clusters_are_told_apart_from_bias() -> None:
    """Pairs at random share much with any cameras: the figure means something only beside chance."""
    labels = np.random.default_rng(0).permutation(np.arange(200) // 2)
    found = camera_bias(knn(unit_features(1, 200), 2), CAMIDS, labels)
    assert found is not None
    assert found.nmi == pytest.approx(found.nmi_by_chance, abs=0.05)
    assert found.nmi > 0.1


def test_one_camera_has_no_bias() -> None:
    assert camera_bias(knn(unit_features(0, 4), 2), np.zeros(4, np.int64)) is None
