"""Exact search by blocks is search in the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calr_cli.distances.search import nearest
from tests.support.features import separated_features, unit_features


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30), st.integers(1, 12))
def test_as_if_everything_were_sorted(seed: int, count: int, rows: int, k: int) -> None:
    features = separated_features(seed, count)
    blocks = [features[start : start + rows] for start in range(0, count, rows)]
    found = nearest(features, blocks, k)
    products = features @ features.T
    expected = np.argsort(-products, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found.indices, expected)
    np.testing.assert_allclose(found.similarities, np.take_along_axis(products, expected, 1), atol=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 3, 8])
def test_equals_come_in_their_order(rows: int) -> None:
    """A gallery often has an image twice: which of them is listed must not depend on the blocks."""
    one, other = unit_features(0, 2)
    gallery = np.stack([other, one, one, other, one, one, one, other])
    blocks = [gallery[start : start + rows] for start in range(0, 8, rows)]
    assert nearest(one[None], blocks, 3).indices.tolist() == [[1, 2, 4]]
