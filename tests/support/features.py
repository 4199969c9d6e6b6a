"""Made-up unit-length features, with no two similarities so near that rounding decides."""

from __future__ import annotations

import numpy as np
from hypothesis import assume

SMALLEST_GAP = 2e-6


def unit_features(seed: int, count: int, dimensions: int = 6) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dimensions))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def separated_features(seed: int, count: int, dimensions: int = 6) -> np.ndarray:
    """For hypothesis: `unit_features` whose rankings do not hang on the last digit."""
    rows = unit_features(seed, count, dimensions)
    products = np.sort(rows.astype(np.float64) @ rows.T.astype(np.float64), axis=1)
    assume(count < 2 or float(np.diff(products, axis=1).min()) > SMALLEST_GAP)
    return rows
