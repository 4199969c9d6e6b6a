"""Exact k nearest neighbours by inner product."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from calr_cli.errors import DataError
from calr_cli.types import FloatArray, Neighbours

try:
    import faiss
except ImportError:  # an optional accelerator: the torch search gives the same answer
    faiss = None

Features = npt.ArrayLike | torch.Tensor

_BLOCK_BYTES = 256 * 2**20


def as_features(features: Features) -> FloatArray:
    """``features`` as a C-contiguous float32 array (N, D) in host memory.

    Raises:
        DataError: Not a matrix, or a value that is not a number (names the first row).
    """
    if isinstance(features, torch.Tensor):
        features = features.detach().cpu().numpy()
    array = np.ascontiguousarray(features, dtype=np.float32)
    if array.ndim != 2:
        raise DataError(f"features have shape {array.shape}, expected (images, dimensions)")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise DataError(
            f"the features of image {int(np.argmin(finite))} are not all finite numbers",
            "Lower the learning rate or check the weights that the features were made with",
        )
    return array


def knn(features: Features, k: int) -> Neighbours:
    """The k rows of ``features`` with the largest inner product with each row, itself counted.

    Searches with FAISS where it is installed, else with blocked torch products. Candidates of equal
    similarity come in index order; only those whose similarities differ by rounding (less than
    1e-6) may change places between the two.

    Args:
        features: (N, D) unit rows.
        k: Neighbours per row, cut to N.

    Returns:
        Neighbours with (N, min(k, N)) indices and similarities, most similar first.

    >>> knn([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], k=2).indices.tolist()
    [[0, 1], [1, 2], [2, 1]]
    """
    array = as_features(features)
    k = min(k, len(array))
    if k < 1:
        return Neighbours(np.empty((len(array), 0), np.int64), np.empty((len(array), 0), np.float32))
    search = _search_faiss if faiss is not None else search_blocks
    similarities, indices = search(array, k)
    order = np.lexsort((indices, -similarities), axis=1)
    return Neighbours(
        np.take_along_axis(indices, order, axis=1).astype(np.int64),
        np.take_along_axis(similarities, order, axis=1),
    )


def _search_faiss(array: FloatArray, k: int) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    index = faiss.IndexFlatIP(array.shape[1])
    index.add(array)
    similarities, indices = index.search(array, k)
    return similarities, indices


def search_blocks(array: FloatArray, k: int) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """The search without FAISS: one block of rows against all rows at a time."""
    everything = torch.from_numpy(array)
    rows = max(1, _BLOCK_BYTES // (4 * len(array)))
    found = [(block @ everything.T).topk(k, dim=1) for block in everything.split(rows)]
    return (
        torch.cat([part.values for part in found]).numpy(),
        torch.cat([part.indices for part in found]).numpy(),
    )
