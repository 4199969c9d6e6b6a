"""k-reciprocal re-ranking of query-gallery distances."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from calr_cli.allocation import require_memory
from calr_cli.distances.euclidean import distance_blocks
from calr_cli.distances.jaccard import known_products
from calr_cli.distances.k_reciprocal import blocks_of_minima, encode, expanded_sets, half_size
from calr_cli.distances.knn import BLOCK_BYTES, FeatureRows, as_features
from calr_cli.types import FloatArray, IntArray, Neighbours

_CPU = torch.device("cpu")


def rerank_distance(
    q_features: FeatureRows,
    g_features: FeatureRows,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    *,
    device: torch.device = _CPU,
    memory_limit: int | None = None,
) -> npt.NDArray[np.float32]:
    """Distances after k-reciprocal re-ranking (Zhong et al., CVPR 2017), as a dense matrix.

    As in the released programs of this family, the squared Euclidean distances are squared once
    more, and an image's distances are divided by the largest of them, before the encoding.

    Args:
        q_features: (Q, D).
        g_features: (G, D).
        k1: Number of neighbours for the reciprocal sets, without the image itself.
        k2: Number of neighbours whose encodings are averaged, the image itself included.
        lambda_value: Share of the original distance in the result, 0..1.
        device: Device that computes the products.
        memory_limit: Bytes that the matrix may take; None: no limit.

    Returns:
        (Q, G) float32: (1 - lambda) * Jaccard + lambda * normalised original distance.

    Raises:
        DataError: A feature is not a finite number.
        MemoryLimitError: The matrix is larger than the limit.

    Differs from the reference: it holds no (Q + G) x (Q + G) matrix but computes rows block by block.
    """
    queries, gallery = as_features(q_features), as_features(g_features)
    shape = (len(queries), len(gallery))
    require_memory(
        4 * shape[0] * shape[1],
        memory_limit,
        f"a dense matrix of {shape[0]:,} x {shape[1]:,} distances",
        "Raise memory_limit_gb, or rank by blocks: calr_cli.distances.rerank.rerank_blocks",
    )
    result, filled = np.empty(shape, np.float32), 0
    for block in rerank_blocks(queries, gallery, k1, k2, lambda_value, device=device):
        result[filled : filled + len(block)] = block
        filled += len(block)
    return result


def rerank_blocks(
    q_features: FeatureRows,
    g_features: FeatureRows,
    k1: int,
    k2: int,
    lambda_value: float,
    *,
    device: torch.device = _CPU,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[npt.NDArray[np.float32]]:
    """`rerank_distance` in blocks of consecutive queries, (queries, G) each, which the caller may change."""
    queries, gallery = as_features(q_features), as_features(g_features)
    if not len(queries) or not len(gallery):
        return
    everything = np.concatenate([queries, gallery])
    num_queries = len(queries)
    known, largest = _nearest(everything, max(k1 + 1, k2), device, block_bytes)
    squares = np.einsum("nd,nd->n", everything, everything).astype(np.float64)

    def normalised(rows: IntArray, columns: IntArray) -> npt.NDArray[np.float64]:
        products = known_products(known, everything, rows, columns)
        euclidean = np.maximum(squares[rows] + squares[columns] - 2 * products, 0)
        scaled: npt.NDArray[np.float64] = euclidean**2 / largest[rows]
        return scaled

    sets = expanded_sets(known.indices, k1 + 1, half_size(k1))
    encoding = encode(sets, normalised, known.indices, k2)
    columns = encoding[num_queries:].T.tocsr()
    left, right = torch.from_numpy(queries).to(device), torch.from_numpy(gallery).to(device)
    start = 0
    for distances in distance_blocks(left, right, block_bytes):
        block = slice(start, start + len(distances))
        start = block.stop
        original = distances.square()
        original *= (lambda_value / torch.from_numpy(largest[block]).to(device)).float()[:, None]
        original += 1 - lambda_value  # the Jaccard distance of images that share no neighbour
        result: npt.NDArray[np.float32] = original.cpu().numpy()
        take = partial(_take_similarity, result, 1 - lambda_value)
        for _ in blocks_of_minima(encoding[block], columns, take):
            pass
        yield result


def _take_similarity(result: FloatArray, share: float, rows: slice, minima: FloatArray) -> None:
    """Subtract ``share`` of the Jaccard similarities m / (2 - m) from the given rows."""
    minima /= 2 - minima
    minima *= share
    result[rows] -= minima


def _nearest(
    everything: FloatArray, k: int, device: torch.device, block_bytes: int
) -> tuple[Neighbours, npt.NDArray[np.float64]]:
    """Nearest images by Euclidean distance, itself first, and the largest 4th power of a distance."""
    count = len(everything)
    k = min(k, count)
    array = torch.from_numpy(everything).to(device)
    halves = array.square().sum(1) / 2
    indices, products = np.empty((count, k), np.int64), np.empty((count, k), np.float32)
    largest = np.empty(count, np.float64)
    rows = max(1, block_bytes // (4 * count))
    memory = torch.empty((min(rows, count), count), device=device)
    for start in range(0, count, rows):
        block = slice(start, min(start + rows, count))
        # Half of one's own square, less half the distance: as good a key, and one pass less to make.
        keys = torch.mm(array[block], array.T, out=memory[: block.stop - block.start]).sub_(halves)
        largest[block] = (2 * (halves[block] - keys.amin(1))).cpu().numpy()
        # The image itself leads its ranking even where rounding leaves it a distance above 0.
        own = torch.arange(block.start, block.stop, device=device)[:, None]
        keys.scatter_(1, own, torch.inf)
        nearest, found = keys.topk(k, dim=1)
        nearest = torch.where(found == own, halves[found], nearest)
        indices[block], products[block] = found.cpu().numpy(), (nearest + halves[found]).cpu().numpy()
    return Neighbours(indices, products), np.maximum(np.square(largest), np.finfo(np.float32).tiny)
