"""The Jaccard distance that stage 1 clusters on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from calr_cli.distances.k_reciprocal import (
    encode,
    expanded_sets,
    half_size,
    jaccard_of_encodings,
)
from calr_cli.distances.knn import Features, as_features, knn
from calr_cli.types import FloatArray, IntArray

_PAIRS_PER_BLOCK = 16384


def jaccard_distance(features: Features, k1: int, k2: int) -> npt.NDArray[np.float32]:
    """Jaccard distance between the k-reciprocal encodings of every two images.

    Args:
        features: (N, D) unit rows.
        k1: Neighbours that the reciprocal sets are made from, the image itself counted; cut to N.
        k2: Neighbours whose encodings are averaged, the image itself counted; 1 averages none.

    Returns:
        (N, N) float32 in 0..1, symmetric, diagonal 0; 1 where two images share no neighbour.

    Raises:
        DataError: A feature that is not a finite number.
    """
    array = as_features(features)
    if not len(array):
        return np.zeros((0, 0), np.float32)
    ranking = knn(array, max(k1, half_size(k1), k2)).indices

    def squared_euclidean(rows: IntArray, columns: IntArray) -> npt.NDArray[np.float64]:
        return np.maximum(2 - 2 * pair_products(array, rows, columns), 0)

    sets = expanded_sets(ranking, k1, half_size(k1))
    encoding = encode(sets, squared_euclidean, ranking, k2)
    distances = jaccard_of_encodings(encoding, encoding)
    np.fill_diagonal(distances, 0)
    return np.maximum(distances, 0)


def pair_products(array: FloatArray, rows: IntArray, columns: IntArray) -> npt.NDArray[np.float64]:
    """Inner products of the pairs of rows (rows[n], columns[n])."""
    products = np.empty(len(rows), np.float64)
    for start in range(0, len(rows), _PAIRS_PER_BLOCK):
        part = slice(start, start + _PAIRS_PER_BLOCK)
        products[part] = np.einsum("nd,nd->n", array[rows[part]], array[columns[part]])
    return products
