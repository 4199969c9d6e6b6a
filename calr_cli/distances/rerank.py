"""k-reciprocal re-ranking of query-gallery distances."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from calr_cli.distances.jaccard import pair_products
from calr_cli.distances.k_reciprocal import (
    encode,
    expanded_sets,
    half_size,
    jaccard_of_encodings,
)
from calr_cli.distances.knn import Features, as_features
from calr_cli.types import FloatArray, IntArray

_BLOCK_BYTES = 128 * 2**20


def euclidean_squared(left: FloatArray, right: FloatArray) -> npt.NDArray[np.float32]:
    """(L, R) squared Euclidean distances, never below 0."""
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1)[None, :]
    products = torch.from_numpy(left) @ torch.from_numpy(right).T
    result: npt.NDArray[np.float32] = np.maximum(squares - 2 * products.numpy(), 0)
    return result


def rerank_distance(
    q_features: Features, g_features: Features, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> npt.NDArray[np.float32]:
    """Distances after k-reciprocal re-ranking (Zhong et al., CVPR 2017).

    As in the released programs of this family, the squared Euclidean distances are squared once
    more, and an image's distances are divided by the largest of them, before the encoding.

    Args:
        q_features: (Q, D).
        g_features: (G, D).
        k1: Neighbours that the reciprocal sets are made from, the image itself not counted.
        k2: Neighbours whose encodings are averaged, the image itself counted.
        lambda_value: Share of the original distance in the result, 0..1.

    Returns:
        (Q, G) float32: (1 - lambda) * Jaccard + lambda * normalised original distance.

    Differs from the reference: no (Q + G) x (Q + G) matrix is held; rows are made block by block.
    """
    queries, gallery = as_features(q_features), as_features(g_features)
    everything = np.concatenate([queries, gallery])
    count, num_queries = len(everything), len(queries)
    nearest = min(max(k1 + 1, half_size(k1), k2), count)

    ranking = np.empty((count, nearest), np.int64)
    largest = np.empty(count, np.float64)
    rows_per_block = max(1, _BLOCK_BYTES // (4 * max(count, 1)))
    for start in range(0, count, rows_per_block):
        block = slice(start, min(start + rows_per_block, count))
        distances = euclidean_squared(everything[block], everything) ** 2
        largest[block] = np.maximum(distances.max(axis=1), np.finfo(np.float32).tiny)
        # The image itself leads its ranking even where rounding leaves it a distance above 0.
        distances[np.arange(block.stop - block.start), np.arange(block.start, block.stop)] = -1
        candidates = np.argpartition(distances, nearest - 1, axis=1)[:, :nearest]
        order = np.lexsort((candidates, np.take_along_axis(distances, candidates, axis=1)), axis=1)
        ranking[block] = np.take_along_axis(candidates, order, axis=1)

    squared_norms = (everything.astype(np.float64) ** 2).sum(1)

    def normalised(rows: IntArray, columns: IntArray) -> npt.NDArray[np.float64]:
        products = pair_products(everything, rows, columns)
        euclidean = np.maximum(squared_norms[rows] + squared_norms[columns] - 2 * products, 0)
        scaled: npt.NDArray[np.float64] = euclidean**2 / largest[rows]
        return scaled

    sets = expanded_sets(ranking, k1 + 1, half_size(k1))
    encoding = encode(sets, normalised, ranking, k2)
    result = jaccard_of_encodings(encoding[:num_queries], encoding[num_queries:])
    result *= 1 - lambda_value
    for start in range(0, num_queries, rows_per_block):
        block = slice(start, min(start + rows_per_block, num_queries))
        original = euclidean_squared(queries[block], gallery) ** 2 / largest[block, None]
        result[block] += (lambda_value * original).astype(np.float32)
    return result
