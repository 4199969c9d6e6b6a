"""Directions in which images of one group vary count less."""

from __future__ import annotations

import numpy as np

from calr_cli.distances.whitening import whiten_within
from calr_cli.types import OUTLIER
from tests.support.features import unit_features


def test_the_direction_of_poses_is_weakened() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 10)
    rows = rng.normal(size=(20, 8))[labels] + 0.1 * rng.normal(size=(200, 8))
    rows[:, 0] += 3 * rng.normal(size=200)  # of the pose, whoever stands there
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def separation(features: np.ndarray) -> float:
        products, same = features @ features.T, labels[:, None] == labels
        return float(products[same].mean() - products[~same].mean())

    wrong = np.where(rng.random(200) < 0.2, rng.integers(0, 20, 200), labels)
    assert separation(whiten_within(rows, wrong)) > 1.2 * separation(rows)


def test_rows_are_unit_and_nothing_to_learn_from_changes_nothing() -> None:
    rows = unit_features(0, 10)
    np.testing.assert_allclose(np.linalg.norm(whiten_within(rows, np.arange(10) // 2), axis=1), 1, atol=1e-6)
    for labels in (np.full(10, OUTLIER), np.arange(10)):
        np.testing.assert_array_equal(whiten_within(rows, labels), rows)
