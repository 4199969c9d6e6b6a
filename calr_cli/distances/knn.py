"""Exact k nearest neighbours by inner product."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from calr_cli.errors import DataError
from calr_cli.types import FloatArray, IntArray, Neighbours

try:
    import faiss
except ImportError:  # an optional accelerator: the torch search gives the same answer
    HAS_FAISS = False
else:
    HAS_FAISS = True

Features = npt.ArrayLike | torch.Tensor

_BLOCK_BYTES = 64 * 2**20


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
    if HAS_FAISS:
        indices, similarities = _search_faiss(array, k)
    else:
        indices, similarities = search_blocks(array, array, k)
    order = np.lexsort((indices, -similarities), axis=1)
    return Neighbours(
        np.take_along_axis(indices, order, axis=1), np.take_along_axis(similarities, order, axis=1)
    )


def _search_faiss(array: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    index = faiss.IndexFlatIP(array.shape[1])
    index.add(array)
    similarities, indices = index.search(array, min(k + 1, len(array)))
    # Which of several equals make the cut is up to FAISS; those rows are searched by our own rule.
    cut_through = (
        similarities[:, k - 1] == similarities[:, -1] if k < len(array) else np.zeros(len(array), bool)
    )
    indices, similarities = indices[:, :k].astype(np.int64), similarities[:, :k]
    if cut_through.any():
        indices[cut_through], similarities[cut_through] = search_blocks(array[cut_through], array, k)
    return indices, similarities


def search_blocks(queries: FloatArray, array: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """The search without FAISS: positions in ``array``, ascending, and similarities, (Q, k) each.

    One block of queries against the whole array at a time; of equals at the cut, the first are kept.
    """
    everything = torch.from_numpy(array)
    rows = max(1, _BLOCK_BYTES // (4 * len(array)))
    indices, similarities = [], []
    for block in torch.split(torch.from_numpy(queries), rows):
        products = block @ everything.T
        least = products.topk(k, dim=1).values[:, -1:]
        above, equal = products > least, products == least
        room = k - above.sum(dim=1, keepdim=True)
        kept = above | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= room))
        indices.append(kept.nonzero()[:, 1].view(-1, k))
        similarities.append(products[kept].view(-1, k))
    return torch.cat(indices).numpy(), torch.cat(similarities).numpy()
