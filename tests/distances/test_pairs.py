"""Similar pairs, block by block."""

from __future__ import annotations

import numpy as np
import pytest

from calr_cli.distances.pairs import similar_pairs
from calr_cli.errors import MemoryLimitError
from tests.support.features import unit_features


@pytest.mark.parametrize("block_bytes", [1, 4 * 40 * 7, 10**6])
def test_all_pairs_that_are_similar_enough(block_bytes: int) -> None:
    rows = unit_features(0, 40)
    products = rows @ rows.T
    np.fill_diagonal(products, 0)
    found = similar_pairs(rows, 0.3, memory_limit=10**6, block_bytes=block_bytes).toarray()
    np.testing.assert_allclose(found, np.where(products >= 0.3, products, 0), atol=1e-6)
    np.testing.assert_array_equal(found, found.T)


def test_pairs_that_do_not_fit() -> None:
    with pytest.raises(MemoryLimitError, match="the similar pairs of 40 images would take"):
        similar_pairs(unit_features(0, 40), -1, memory_limit=100)
