"""k-reciprocal encoding: each image as a sparse row of weights over its mutual neighbours.

Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017, in
the arithmetic of the released CALR program.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import sparse

from calr_cli.types import IntArray

PairDistances = Callable[[IntArray, IntArray], npt.NDArray[np.float64]]
"""Distances of the pairs (rows[n], columns[n])."""


def half_size(k1: int) -> int:
    """Size of the candidates' own sets: round(k1 / 2) + 1, a half rounded to even."""
    return round(k1 / 2) + 1


def membership(ranking: IntArray, k: int) -> sparse.csr_array:
    """(N, N) matrix of 0 and 1: which images are among the first ``k`` of each image's ranking."""
    count = len(ranking)
    k = min(k, ranking.shape[1])
    columns = np.ascontiguousarray(ranking[:, :k]).ravel()
    return sparse.csr_array(
        (np.ones(len(columns), np.int32), columns, np.arange(0, len(columns) + 1, k)), shape=(count, count)
    )


def reciprocal_sets(ranking: IntArray, k: int) -> sparse.csr_array:
    """(N, N) matrix of 0 and 1: pairs that are among each other's first ``k``."""
    nearest = membership(ranking, k)
    return nearest.multiply(nearest.T).tocsr()


def expanded_sets(ranking: IntArray, k: int, k_half: int) -> sparse.csr_array:
    """k-reciprocal sets grown by those candidates' own sets that they mostly contain.

    To R(i) is added H(c), the reciprocal set of size ``k_half``, for every c in the original R(i) with
    |H(c) and R(i)| > 2/3 |H(c)|.

    Args:
        ranking: (N, >= max(k, k_half)) nearest images of each image, itself first.
        k: Size of the ranking that R is made from, the image itself counted.
        k_half: The same for H.

    Returns:
        (N, N) matrix, non-zero where j is in the expanded set of i.
    """
    sets = reciprocal_sets(ranking, k)
    halves = reciprocal_sets(ranking, k_half)
    overlap = sets.multiply(sets @ halves.T).tocoo()  # |H(c) and R(i)| for c in R(i) only
    sizes = np.diff(halves.indptr)
    accepted = 3 * overlap.data > 2 * sizes[overlap.col]
    pairs = (overlap.row[accepted], overlap.col[accepted])
    donors = sparse.csr_array((np.ones(len(pairs[0]), np.int32), pairs), shape=sets.shape)
    expanded = (sets + donors @ halves).tocsr()
    expanded.sort_indices()
    return expanded


def encode(sets: sparse.csr_array, distances: PairDistances, ranking: IntArray, k2: int) -> sparse.csr_array:
    """Weights of each image over its set, averaged over its ``k2`` nearest images.

    The weights of a row are the softmax of minus the distances to the members of its set.

    Returns:
        (N, N) sparse float64 rows that sum to 1.
    """
    rows = np.repeat(np.arange(sets.shape[0]), np.diff(sets.indptr))
    weights = np.exp(-distances(rows, sets.indices.astype(np.int64)))
    weights /= np.bincount(rows, weights, minlength=sets.shape[0])[rows]
    encoding = sparse.csr_array((weights, sets.indices, sets.indptr), shape=sets.shape)
    if k2 > 1:
        nearest = membership(ranking, k2)
        encoding = (nearest @ encoding) / min(k2, ranking.shape[1])
    return encoding.tocsr()


def jaccard_of_encodings(left: sparse.csr_array, right: sparse.csr_array) -> npt.NDArray[np.float32]:
    """(L, R) Jaccard distances 1 - m / (2 - m), m the sum of element-wise minima of two rows.

    Goes column by column over the images that both sides weigh: pairs that share no neighbour are
    never touched and keep distance 1.
    """
    minima = np.zeros((left.shape[0], right.shape[0]), np.float32)
    left, right = left.tocsc(), right.tocsc()
    for column in range(left.shape[1]):
        a = slice(left.indptr[column], left.indptr[column + 1])
        b = slice(right.indptr[column], right.indptr[column + 1])
        if a.start < a.stop and b.start < b.stop:
            shared = np.minimum.outer(left.data[a], right.data[b])
            minima[np.ix_(left.indices[a], right.indices[b])] += shared
    distances: npt.NDArray[np.float32] = 1 - minima / (2 - minima)
    return distances
