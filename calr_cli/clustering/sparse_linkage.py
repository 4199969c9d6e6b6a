"""Average linkage and silhouette on sparse similarities, in memory proportional to the stored pairs.

A pair that is not stored has similarity 0, that is, distance 1. So the distance of clusters A and B is
1 - (sum of the stored similarities between them) / (|A| |B|), and both algorithms need only sums of stored
similarities.

Source: reciprocal nearest neighbours, F. Murtagh, "A survey of recent advances in hierarchical clustering
algorithms", The Computer Journal 26(4), 1983. A union of two clusters is never nearer to a third cluster than
both were. So two clusters that are each other's nearest stay so until they merge, and all such pairs can
merge at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

from calr_cli.types import IntArray

# Similarities are summed in int64 as multiples of 2**-30: exact in any order, so that equal averages compare
# equal and both clusters of a pair see the same one. The step of float32 distances near 1 is 64 times this.
_SCALE = 2**30

_ENTRIES_PER_BLOCK = 2**17
_READS_BEFORE_CONTRACTION = 4  # of as many entries as the matrix has


def sparse_linkage(similarities: sparse.csr_array, counts: Sequence[int]) -> list[IntArray]:
    """Average-linkage labels, as ``agglomerative_partitions`` describes them.

    Besides the input (8 bytes per stored entry) the function holds a matrix of sums between clusters, with 12
    bytes per entry and usually less than two thirds of the entries; it holds two such matrices while the
    next, smaller matrix replaces the old one.

    Args:
        similarities: (N, N) symmetric floats in 0..1, both triangles stored; the diagonal is ignored.
        counts: Numbers of clusters to make, each 1..N.

    Returns:
        (N,) labels for each of ``counts``, 0..count-1, numbered by smallest member.
    """
    total = similarities.shape[0]
    first, second, heights = lowest_merges(similarities, total - min(counts))
    order = np.lexsort((second, first, -heights))
    return [_cut(first, second, order[: total - count], total, count) for count in counts]


def linkage_above(similarities: sparse.csr_array, least: float) -> IntArray:
    """Average-linkage labels that merge as long as two clusters have an average similarity of ``least``.

    Args:
        similarities: As of `sparse_linkage`.
        least: Above 0.

    Returns:
        (N,) labels 0..K-1, numbered by smallest member.
    """
    total = similarities.shape[0]
    first, second, heights = lowest_merges(similarities, total, least)
    return _cut(first, second, np.arange(len(heights)), total, total - len(heights))


def _cut(first: IntArray, second: IntArray, chosen: IntArray, total: int, count: int) -> IntArray:
    """Labels after the ``chosen`` merges and, if these are too few, merges at distance 1."""
    parent = np.arange(total)
    parent[second[chosen]] = first[chosen]
    # A cluster disappears once, into one with a smaller member: a forest, climbed by doubling.
    while (parent[parent] != parent).any():
        parent = parent[parent]
    labels = np.unique(parent, return_inverse=True)[1].astype(np.int64)
    # All that is left is at distance exactly 1, where the lowest cluster takes in the next lowest.
    joined: IntArray = np.maximum(labels - (total - count - len(chosen)), 0)
    return joined


def lowest_merges(
    similarities: sparse.csr_array, wanted: int, least: float = 0.0
) -> tuple[IntArray, IntArray, npt.NDArray[np.float64]]:
    """Merges of the average-linkage hierarchy that include the ``wanted`` lowest below distance 1.

    Of clusters less similar than ``least`` there may be none.

    Returns:
        Smallest images of the two clusters of each merge, the smaller first, and their average
        similarity, in no particular order. Fewer than ``wanted`` if fewer are below distance 1.
    """
    clusters = _Clusters(similarities)
    first, second, heights = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    stale = np.arange(similarities.shape[0])
    while wanted:
        clusters.find_nearest(stale)
        a, b = clusters.reciprocal_pairs(least)
        if not len(a):
            break
        first, second = np.append(first, clusters.images[a]), np.append(second, clusters.images[b])
        heights = np.append(heights, clusters.similarity[a])
        stale = clusters.merge(a, b)
        if len(heights) >= wanted:
            # Nearest clusters only get farther: what is farther than the last merge wanted can rest.
            least = float(np.partition(heights, -wanted)[-wanted])
            stale = stale[clusters.similarity[stale] >= least]
        elif clusters.entries_read > _READS_BEFORE_CONTRACTION * clusters.matrix.nnz:
            stale = clusters.contract(stale)
    return first, second, heights


class _Clusters:
    """Clusters of the rows of a matrix; each has its place in the row of its smallest member.

    So ties are broken by the order of the rows.

    Attributes:
        matrix: (R, R) similarities of images or, once contracted, int64 sums between clusters.
        images: (R,) smallest image of each row.
        owner: (R,) row in which the cluster of each row has its place.
        sizes: (R,) number of images of the cluster in each row.
        nearest: (R,) row of the nearest other cluster.
        similarity: (R,) average similarity to the nearest cluster; 0 for a row without a cluster.
        entries: (R,) number of entries of the matrix to read for the cluster in each row.
        entries_read: Number of entries read since the matrix was made.
    """

    def __init__(self, similarities: sparse.csr_array) -> None:
        count = similarities.shape[0]
        self.matrix = similarities
        self.images, self.sizes, self.similarity = np.arange(count), np.ones(count), np.zeros(count)
        self.owner = np.arange(count, dtype=similarities.indices.dtype)
        self.nearest = np.zeros_like(self.owner)
        self.entries, self.entries_read = np.diff(similarities.indptr).astype(np.int64), 0

    def find_nearest(self, rows: IntArray) -> None:
        """Find the nearest cluster of each cluster in ``rows``, which are ascending."""
        self.entries_read += int(self.entries[rows].sum())
        for part, sums in _group_sums(self.matrix, self.owner, rows, self.owner):
            lengths = np.diff(sums.indptr)
            row = np.repeat(rows[part], lengths)
            average = sums.data / (self.sizes[sums.indices] * self.sizes[row] * _SCALE)
            average[sums.indices == row] = 0
            filled = rows[part][lengths > 0]
            starts = sums.indptr[:-1][lengths > 0]
            self.similarity[rows[part]] = 0
            self.similarity[filled] = np.maximum.reduceat(average, starts)
            tied = np.where(average == self.similarity[row], sums.indices, len(self.owner))
            self.nearest[filled] = np.minimum.reduceat(tied, starts)

    def reciprocal_pairs(self, least: float) -> tuple[IntArray, IntArray]:
        """Rows of the pairs of clusters that are each other's nearest, no farther than ``least``."""
        first = np.flatnonzero((self.similarity > 0) & (self.similarity >= least))
        second = self.nearest[first]
        reciprocal = (first < second) & (self.nearest[second] == first)
        return first[reciprocal], second[reciprocal]

    def merge(self, first: IntArray, second: IntArray) -> IntArray:
        """Merge the clusters of rows ``second`` into ``first``; return the rows that need a new nearest."""
        target = np.arange(len(self.owner), dtype=self.owner.dtype)
        target[second] = first
        self.owner = target[self.owner]
        self.sizes[first] += self.sizes[second]
        self.entries[first] += self.entries[second]
        self.similarity[second] = 0
        merged = np.zeros(len(self.owner), bool)
        merged[first] = merged[second] = True
        stale: IntArray = np.flatnonzero((self.similarity > 0) & merged[self.nearest])
        return stale

    def contract(self, rows: IntArray) -> IntArray:
        """Replace the matrix by the sums between the current clusters; return ``rows`` in its numbering."""
        kept = np.flatnonzero(self.similarity > 0)  # the others have nothing stored with any cluster
        position = np.zeros_like(self.owner)
        position[kept] = np.arange(len(kept))
        # Pages that stay untouched take no memory, and shrinking in place copies nothing.
        data = np.empty(self.matrix.nnz, np.int64)
        indices = np.empty(self.matrix.nnz, self.matrix.indices.dtype)
        indptr = np.zeros(len(kept) + 1, self.matrix.indptr.dtype)
        end = 0
        for part, sums in _group_sums(self.matrix, self.owner, kept, position[self.owner]):
            indptr[part.start + 1 : part.stop + 1] = sums.indptr[1:] + end
            data[end : end + sums.nnz] = sums.data
            indices[end : end + sums.nnz] = sums.indices
            end += sums.nnz
        data.resize(end, refcheck=False)
        indices.resize(end, refcheck=False)
        self.matrix = sparse.csr_array((data, indices, indptr), shape=(len(kept), len(kept)))
        self.images, self.sizes, self.similarity = self.images[kept], self.sizes[kept], self.similarity[kept]
        self.nearest = position[self.nearest[kept]]
        self.owner = np.arange(len(kept), dtype=self.owner.dtype)
        self.entries, self.entries_read = np.diff(indptr).astype(np.int64), 0
        return position[rows]


def _group_sums(
    matrix: sparse.csr_array, owner: IntArray, groups: IntArray, labels: IntArray
) -> Iterator[tuple[slice, sparse.csr_array]]:
    """Fixed-point sums over the rows of each group and the columns of each label, block by block.

    Args:
        matrix: (R, C) similarities, or int64 fixed-point sums.
        owner: (R,) group of each row.
        groups: (G,) groups wanted, ascending.
        labels: (C,) label of each column, below C.

    Yields:
        The slice of ``groups`` that a block covers, and its (block, C) sums, columns not sorted.
    """
    wanted = np.zeros(len(owner), bool)
    wanted[groups] = True
    rows = np.flatnonzero(wanted[owner])
    rows = rows[np.argsort(owner[rows], kind="stable")]
    starts = np.append(np.searchsorted(owner[rows], groups), len(rows))
    lengths = matrix.indptr[rows + 1] - matrix.indptr[rows]
    entries = np.append(0, np.cumsum(lengths, dtype=np.int64))[starts]
    # One type of index all through: SciPy would widen 32 bits to 64 for a single array that has them.
    index = matrix.indices.dtype
    labels = labels.astype(index, copy=False)
    begin = 0
    while begin < len(groups):
        end = int(np.searchsorted(entries, entries[begin] + _ENTRIES_PER_BLOCK, "right")) - 1
        end = max(end, begin + 1)
        block = matrix[rows[starts[begin] : starts[end]]]
        data = block.data if block.dtype == np.int64 else np.rint(block.data * _SCALE).astype(np.int64)
        block = sparse.csr_array((data, labels[block.indices], block.indptr), shape=block.shape)
        count = block.shape[0]
        members = np.arange(count, dtype=index)
        together = sparse.csr_array(
            (np.ones(count, np.int64), members, (starts[begin : end + 1] - starts[begin]).astype(index)),
            shape=(end - begin, count),
        )
        yield slice(begin, end), together @ block
        begin = end


def sparse_silhouette(similarities: sparse.csr_array, labels: IntArray) -> float:
    """Mean silhouette, as ``silhouette`` describes it.

    Args:
        similarities: (N, N) symmetric floats in 0..1, both triangles stored, the diagonal not.
        labels: (N,) cluster labels, 0..K-1 with 1 < K < N.
    """
    images = np.arange(len(labels))
    sizes = np.bincount(labels)
    inside, outside = np.zeros(len(labels)), np.zeros(len(labels))  # sum; largest average
    for part, sums in _group_sums(similarities, images, images, labels):
        lengths = np.diff(sums.indptr)
        row = np.repeat(images[part], lengths)
        average = sums.data / sizes[sums.indices]
        own = sums.indices == labels[row]
        inside[row[own]] = sums.data[own]
        average[own] = 0
        filled = lengths > 0
        outside[part][filled] = np.maximum.reduceat(average, sums.indptr[:-1][filled])
    a = 1 - inside / _SCALE / np.maximum(sizes[labels] - 1, 1)
    b = 1 - outside / _SCALE
    larger = np.maximum(a, b)
    scores = (b - a) / np.where(larger > 0, larger, 1)
    return float(scores[sizes[labels] > 1].sum() / len(labels))
