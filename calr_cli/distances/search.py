"""Finds the nearest images in a gallery that does not fit into memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from calr_cli.distances.knn import search_by_rule
from calr_cli.types import FloatArray, Neighbours

BLOCK_BYTES = 32 * 2**20
"""Bytes of a block, and of the products with it; larger blocks are not faster."""


def nearest(
    queries: FloatArray,
    blocks: Iterable[FloatArray],
    k: int,
    *,
    device: torch.device | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Neighbours:
    """The k rows of all ``blocks`` together with the largest inner product with each query; exact.

    The function goes through the gallery once. Among equal similarities, the first rows win, in their order.

    Args:
        queries: (Q, D) unit rows.
        blocks: Consecutive parts of the gallery, (B, D) unit rows each.
        k: Number of neighbours per query.
        device: Device that computes the products; None: the CPU.
        block_bytes: Bytes of scratch memory for the products with one block.

    Returns:
        Positions in the gallery and similarities, (Q, min(k, G)), most similar first.

    >>> nearest(np.eye(2, dtype=np.float32), [np.eye(2, dtype=np.float32)], k=1).indices.tolist()
    [[0], [1]]
    """
    device = device or torch.device("cpu")
    indices = np.empty((len(queries), 0), np.int64)
    similarities = np.empty((len(queries), 0), np.float32)
    first = 0
    for block in blocks:
        found, values = search_by_rule(queries, block, min(k, len(block)), device, block_bytes)
        indices = np.concatenate([indices, found + first], axis=1)
        similarities = np.concatenate([similarities, values], axis=1)
        order = np.lexsort((indices, -similarities), axis=1)[:, :k]
        indices = np.take_along_axis(indices, order, axis=1)
        similarities = np.take_along_axis(similarities, order, axis=1)
        first += len(block)
    return Neighbours(indices, similarities)
