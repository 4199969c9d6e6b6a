"""Finds all pairs of images that are similar enough, without a matrix of all pairs."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from calr_cli.allocation import require_memory
from calr_cli.distances.knn import BLOCK_BYTES
from calr_cli.types import FloatArray

_ENTRY_BYTES = 24  # of a pair: value and column, and once more while the parts are joined


def similar_pairs(
    features: FloatArray,
    least: float,
    *,
    memory_limit: int,
    device: torch.device | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> sparse.csr_array:
    """The inner products of at least ``least``, as (N, N) symmetric CSR without the diagonal.

    Args:
        features: (N, D) unit rows.
        least: Smallest inner product to be stored.
        memory_limit: Bytes that the pairs may take.
        device: Device that computes the products; None: the CPU.
        block_bytes: Bytes of scratch memory for one block of products.

    Raises:
        MemoryLimitError: The pairs do not fit.

    >>> similar_pairs(np.eye(3, dtype=np.float32)[[0, 0, 1]], 0.5, memory_limit=10**6).toarray()[0].tolist()
    [0.0, 1.0, 0.0]
    """
    count = len(features)
    everything = torch.from_numpy(features).to(device or torch.device("cpu"))
    rows_per_block = max(1, block_bytes // (4 * max(count, 1)))
    lengths, columns, values, stored = [np.zeros(1, np.int64)], [], [], 0
    for first in range(0, count, rows_per_block):
        products = everything[first : first + rows_per_block] @ everything.T
        number = torch.arange(len(products), device=products.device)
        products[number, number + first] = -torch.inf
        row, column = torch.nonzero(products >= least, as_tuple=True)
        columns.append(column.to(torch.int32).cpu().numpy())
        values.append(products[row, column].cpu().numpy())
        lengths.append(np.bincount(row.cpu().numpy(), minlength=len(products)))
        stored += len(row)
        require_memory(
            _ENTRY_BYTES * stored,
            memory_limit,
            f"the similar pairs of {count:,} images",
            "Ask for more similarity",
        )
    if not count:
        return sparse.csr_array((0, 0), dtype=np.float32)
    starts = np.concatenate(lengths).cumsum()
    starts = starts.astype(np.int32) if stored < 2**31 else starts  # SciPy wants both of one kind
    found = sparse.csr_array((np.concatenate(values), np.concatenate(columns), starts), shape=(count, count))
    return found.maximum(found.T).tocsr()  # a product and its mirror image may be rounded differently
