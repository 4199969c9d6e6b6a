"""Jaccard distances of k-reciprocal encodings, stored only for images that share a neighbour."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from calr_cli.allocation import gigabytes, require_memory
from calr_cli.distances.k_reciprocal import (
    ENTRY_BYTES,
    blocks_of_minima,
    count_pairs,
    encode,
    expanded_sets,
    half_size,
)
from calr_cli.distances.knn import FeatureRows, as_features, knn
from calr_cli.events import Reporter, SilentReporter
from calr_cli.types import FloatArray, IntArray, Neighbours

_PAIRS_PER_BLOCK = 1024
_REMEDY = "Raise memory_limit_gb, lower k1 or k2, or cluster fewer images at a time"


def jaccard_distance(
    features: FeatureRows,
    k1: int,
    k2: int,
    *,
    neighbours: Neighbours | None = None,
    memory_limit: int | None = None,
) -> npt.NDArray[np.float32]:
    """Jaccard distance between the k-reciprocal encodings of every two images, as a dense matrix.

    Args:
        features: (N, D) unit rows.
        k1: Number of neighbours for the reciprocal sets, the image itself included; cut to N.
        k2: Number of neighbours whose encodings are averaged, the image itself included; 1 means none.
        neighbours: At least max(k1, k2) neighbours of each image, if they are already known.
        memory_limit: Bytes that the matrix may take; None: no limit.

    Returns:
        (N, N) float32 in 0..1, symmetric, diagonal 0; 1 for two images that share no neighbour.

    Raises:
        DataError: A feature is not a finite number.
        MemoryLimitError: The matrix is larger than the limit.
    """
    array = as_features(features)
    count = len(array)
    require_memory(4 * count**2, memory_limit, f"a dense matrix of {count:,} x {count:,} distances", _REMEDY)
    distances = np.empty((count, count), np.float32)
    if not count:
        return distances
    encoding = encode_features(array, k1, k2, neighbours)

    def store(rows: slice, minima: FloatArray) -> None:
        similarity = _similarity(minima)
        np.subtract(1, similarity, out=distances[rows])

    for _ in blocks_of_minima(encoding, encoding.T.tocsr(), store):
        pass
    np.fill_diagonal(distances, 0)
    return distances


def jaccard_similarity(
    features: FeatureRows,
    k1: int,
    k2: int,
    *,
    neighbours: Neighbours | None = None,
    min_similarity: float = 0.0,
    memory_limit: int | None = None,
    reporter: Reporter | None = None,
) -> sparse.csr_array:
    """Jaccard similarity, 1 - `jaccard_distance`, of the pairs that share a neighbour.

    The function counts the pairs and reports their bytes before it allocates memory for them.

    Args:
        features: (N, D) unit rows.
        k1: See `jaccard_distance`.
        k2: See `jaccard_distance`.
        neighbours: See `jaccard_distance`.
        min_similarity: Pairs below it are left out.
        memory_limit: Bytes that the pairs may take; None: no limit.
        reporter: Receiver of the number of pairs.

    Returns:
        (N, N) float32 CSR in 0..1, symmetric, both triangles, columns in order, without the diagonal. A
        pair that is not stored has similarity 0 (or below ``min_similarity``).

    Raises:
        DataError: A feature is not a finite number.
        MemoryLimitError: The pairs do not fit into the limit.
    """
    array = as_features(features)
    count = len(array)
    if not count:
        return sparse.csr_array((0, 0), dtype=np.float32)
    encoding = encode_features(array, k1, k2, neighbours)
    pairs = count_pairs(encoding) - count
    size = ENTRY_BYTES * pairs
    (reporter or SilentReporter()).note(
        f"Jaccard: {pairs / count:,.0f} pairs an image share a neighbour, {gigabytes(size)}"
    )
    if not min_similarity:
        require_memory(size, memory_limit, f"{pairs:,} pairs of {count:,} images", _REMEDY)
    # With a smallest similarity most of this is never touched, and untouched pages take no memory.
    columns, values = np.empty(pairs, np.int32), np.empty(pairs, np.float32)
    starts = np.zeros(count + 1, np.int32 if pairs < 2**31 else np.int64)  # SciPy wants both of one kind

    def pick(rows: slice, minima: FloatArray) -> tuple[slice, IntArray, npt.NDArray[np.int32], FloatArray]:
        minima[np.arange(len(minima)), np.arange(rows.start, rows.stop)] = 0
        if min_similarity:
            minima[minima < _minima_of(min_similarity)] = 0
        stored = minima > 0  # numpy finds truth values faster than numbers
        per_row = np.count_nonzero(stored, axis=1)
        place = np.flatnonzero(stored)
        similarity = _similarity(minima.ravel()[place])
        place -= np.repeat(np.arange(len(minima)) * count, per_row)
        return rows, per_row, place.astype(np.int32), similarity

    used = 0
    for rows, per_row, column, similarity in blocks_of_minima(encoding, encoding.T.tocsr(), pick):
        starts[rows.start + 1 : rows.stop + 1] = used + per_row.cumsum()
        columns[used : used + len(column)], values[used : used + len(column)] = column, similarity
        used += len(column)
        require_memory(ENTRY_BYTES * used, memory_limit, f"the pairs of {rows.stop:,} images", _REMEDY)
    if used < pairs:
        columns, values = columns[:used].copy(), values[:used].copy()
    return sparse.csr_array((values, columns, starts), shape=(count, count))


def encode_features(
    array: FloatArray, k1: int, k2: int, neighbours: Neighbours | None = None
) -> sparse.csr_array:
    """k-reciprocal encoding of unit rows by inner product; see `encode`."""
    found = neighbours or knn(array, max(k1, k2))
    sets = expanded_sets(found.indices, k1, half_size(k1))

    def squared_euclidean(rows: IntArray, columns: IntArray) -> npt.NDArray[np.float64]:
        return np.maximum(2 - 2 * known_products(found, array, rows, columns), 0)

    return encode(sets, squared_euclidean, found.indices, k2)


def known_products(
    neighbours: Neighbours, array: FloatArray, rows: IntArray, columns: IntArray
) -> npt.NDArray[np.float64]:
    """Inner products of pairs: most come from the search, the few missing ones are computed."""
    count = len(array)
    order = np.argsort(neighbours.indices, axis=1)
    found = np.take_along_axis(neighbours.indices, order, axis=1) + np.arange(count)[:, None] * count
    keys = rows * count + columns
    place = np.minimum(np.searchsorted(found.ravel(), keys), found.size - 1)
    products = np.take_along_axis(neighbours.similarities, order, axis=1).ravel()[place].astype(np.float64)
    unknown = np.flatnonzero(found.ravel()[place] != keys)
    products[unknown] = pair_products(array, rows[unknown], columns[unknown])
    return products


def pair_products(array: FloatArray, rows: IntArray, columns: IntArray) -> npt.NDArray[np.float64]:
    """Inner products of the pairs of rows (rows[n], columns[n])."""
    products = np.empty(len(rows), np.float64)
    for start in range(0, len(rows), _PAIRS_PER_BLOCK):
        part = slice(start, start + _PAIRS_PER_BLOCK)
        products[part] = np.einsum("nd,nd->n", array[rows[part]], array[columns[part]])
    return products


def _similarity(minima: FloatArray) -> FloatArray:
    """Similarities m / (2 - m) of minima m, at most 1 despite rounding."""
    result: FloatArray = np.minimum(minima / (2 - minima), 1)
    return result


def _minima_of(similarity: float) -> float:
    return 2 * similarity / (1 + similarity)
