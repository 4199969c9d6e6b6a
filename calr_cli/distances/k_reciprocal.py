"""k-reciprocal encoding: each image as a sparse row of weights over its mutual neighbours.

Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017, in
the arithmetic of the released CALR program.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from calr_cli.types import FloatArray, IntArray

PairDistances = Callable[[IntArray, IntArray], npt.NDArray[np.float64]]
"""Function that gives the distances of the pairs (rows[n], columns[n])."""

Result = TypeVar("Result")

_BLOCK_ENTRIES = 2**20
ENTRY_BYTES = 8
"""Bytes of a stored pair: a float32 value and an int32 column."""


def half_size(k1: int) -> int:
    """Size of the candidates' own sets: round(k1 / 2) + 1; halves are rounded to even."""
    return round(k1 / 2) + 1


def membership(ranking: IntArray, k: int) -> sparse.csr_array:
    """(N, N) matrix of 0 and 1: which images are among the first ``k`` of each image's ranking."""
    count = len(ranking)
    k = min(k, ranking.shape[1])
    columns = ranking[:, :k].astype(np.int32).ravel()  # half the memory to read of SciPy's default
    starts = np.arange(0, len(columns) + 1, k, dtype=np.int32)
    return sparse.csr_array((np.ones(len(columns), np.int32), columns, starts), shape=(count, count))


def reciprocal_sets(ranking: IntArray, k: int) -> sparse.csr_array:
    """(N, N) matrix of 0 and 1: pairs that are among each other's first ``k``."""
    nearest = membership(ranking, k)
    return nearest.multiply(nearest.T).tocsr()


def expanded_sets(ranking: IntArray, k: int, k_half: int) -> sparse.csr_array:
    """k-reciprocal sets, each extended by the sets of its members that it mostly contains.

    For every c in the original R(i) with |H(c) and R(i)| > 2/3 |H(c)|, H(c) is added to R(i). H(c) is the
    reciprocal set of size ``k_half``.

    Args:
        ranking: (N, >= max(k, k_half)) nearest images of each image, itself first.
        k: Number of nearest images from which R is made, the image itself included.
        k_half: Number of nearest images from which H is made.

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
        (N, N) sparse float32 rows that sum to 1, columns in order.
    """
    rows = np.repeat(np.arange(sets.shape[0]), np.diff(sets.indptr))
    weights = np.exp(-distances(rows, sets.indices.astype(np.int64)))
    weights /= np.bincount(rows, weights, minlength=sets.shape[0])[rows]
    encoding = sparse.csr_array((weights, sets.indices, sets.indptr), shape=sets.shape)
    if k2 > 1:
        nearest = membership(ranking, k2)
        encoding = (nearest @ encoding) / min(k2, ranking.shape[1])
    encoding = encoding.astype(np.float32)
    encoding.eliminate_zeros()  # of images so far away that their weight is nothing
    encoding.sort_indices()
    return encoding


def blocks_of_minima(
    left: sparse.csr_array, columns: sparse.csr_array, then: Callable[[slice, FloatArray], Result]
) -> Iterator[Result]:
    """The results of ``then(rows, minima)`` for each block of rows of ``left``, in order.

    ``minima`` (rows, R) holds the sum of element-wise minima of each of these rows and every row of another
    encoding; only pairs that weigh a common image are computed. ``then`` runs in several threads at a time,
    and it may change the matrix.

    Args:
        left: (L, C) encoding.
        columns: (C, R) the other encoding, transposed.
        then: Function that turns a block into a result.
    """

    def block(start: int, stop: int) -> Result:
        return then(slice(start, stop), _dense_rows(left, columns, start, stop))

    return _in_threads(_blocks_of_equal_work(left, columns), block)


def count_pairs(encoding: sparse.csr_array) -> int:
    """Number of ordered pairs of images that share a neighbour, including each image with itself."""
    pattern = encoding.astype(bool)
    columns = pattern.T.tocsr()

    def block(start: int, stop: int) -> int:
        return int(np.count_nonzero(_dense_rows(pattern, columns, start, stop)))

    return sum(_in_threads(_blocks_of_equal_work(pattern, columns), block))


def _dense_rows(left: sparse.csr_array, columns: sparse.csr_array, start: int, stop: int) -> npt.NDArray[Any]:
    """Sums of minima of rows of ``left`` and the other encoding; of truth values, whether any is shared."""
    entries = slice(left.indptr[start], left.indptr[stop])
    shared = columns[left.indices[entries]]  # for every weight of ours, all that the others give it
    if shared.dtype != bool:
        shared.data = np.minimum(shared.data, np.repeat(left.data[entries], np.diff(shared.indptr)))
    starts = shared.indptr[left.indptr[start : stop + 1] - entries.start]
    summed = sparse.csr_array((shared.data, shared.indices, starts), shape=(stop - start, columns.shape[1]))
    result: npt.NDArray[Any] = summed.toarray()  # several weights of one pair are added
    return result


def _blocks_of_equal_work(left: sparse.csr_array, columns: sparse.csr_array) -> list[tuple[int, int]]:
    """Ranges of rows with about equal work: entries of ``columns`` to visit and dense results to fill."""
    sizes = np.diff(columns.indptr).astype(np.float64)
    visited = np.concatenate([[0.0], np.cumsum(sizes[left.indices])])[left.indptr]
    work = visited + columns.shape[1] * np.arange(len(visited), dtype=np.float64)
    cuts = np.searchsorted(work, np.arange(_BLOCK_ENTRIES, work[-1], _BLOCK_ENTRIES))
    cuts = np.unique([0, *cuts, left.shape[0]])
    return [(int(start), int(stop)) for start, stop in itertools.pairwise(cuts)]


def _in_threads(blocks: list[tuple[int, int]], work: Callable[[int, int], Result]) -> Iterator[Result]:
    """Results in order; at any time only a few blocks are in progress or waiting."""
    threads = torch.get_num_threads()
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for start, stop in blocks:
            waiting.append(pool.submit(work, start, stop))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
