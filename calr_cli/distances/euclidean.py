"""Squared Euclidean distances, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK_BYTES = 128 * 2**20
"""Bytes of a block of distances: with few rows, a product spends its time on arranging the gallery."""


def distance_blocks(queries: Tensor, gallery: Tensor, block_bytes: int = BLOCK_BYTES) -> Iterator[Tensor]:
    """Squared Euclidean distances, never below 0, in (rows, G) blocks of queries that reuse one buffer."""
    squares = squared_lengths(gallery)
    rows = max(1, block_bytes // (4 * max(len(gallery), 1)))
    memory = torch.empty((min(rows, len(queries)), len(gallery)), device=gallery.device)
    for block in torch.split(queries, rows):
        distances = torch.addmm(squares, block, gallery.T, alpha=-2, out=memory[: len(block)])
        yield distances.add_(squared_lengths(block)[:, None]).clamp_(min=0)


def squared_lengths(features: Tensor) -> Tensor:
    """Squared lengths of the rows, without a second matrix of the same size."""
    squares: Tensor = torch.linalg.vector_norm(features, dim=1).square()
    return squares
