"""k nearest neighbours by inner product: exact by torch or FAISS, approximate by FAISS."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_info

from calr_cli.allocation import named_when_full
from calr_cli.errors import ConfigError, DataError
from calr_cli.types import FloatArray, IntArray, Neighbours

try:
    import faiss
except ImportError:  # an extra: the torch search gives the same answer
    HAS_FAISS = False
else:
    HAS_FAISS = True

_INSTALL = "Install it with: pip install 'calr-cli[faiss]'"

FeatureRows = npt.ArrayLike | torch.Tensor
"""(N, D), as a caller has them."""

Backend = Literal["auto", "faiss", "torch"]

BLOCK_BYTES = 256 * 2**20
"""Scratch bytes of one block of products: small blocks spend their time arranging the other factor."""

_CPU = torch.device("cpu")
_RECALL_QUERIES = 1000


def as_features(features: FeatureRows) -> FloatArray:
    """``features`` as a C-contiguous float32 array (N, D) in host memory.

    Raises:
        DataError: ``features`` is not a matrix, or has a value that is not a number (names the first row).
    """
    if isinstance(features, torch.Tensor):
        features = features.detach().cpu().numpy()
    array = np.ascontiguousarray(features, dtype=np.float32)
    if array.ndim != 2:
        raise DataError(f"features have shape {array.shape}, expected (images, dimensions)")
    # The sum of a row is finite only if its values are: one pass without a matrix of truth values.
    finite = np.isfinite(np.einsum("nd->n", array))
    for row in np.flatnonzero(~finite):  # a sum can overflow where no value does
        if not np.isfinite(array[row]).all():
            raise DataError(
                f"the features of image {row} are not all finite numbers",
                "Lower the learning rate or check the weights that the features were made with",
            )
    return array


def choose_backend(backend: Backend = "auto", device: torch.device = _CPU) -> str:
    """The library that searches: ``faiss-gpu``, ``faiss-cpu`` or ``torch``.

    ``auto`` takes FAISS on a CPU if it is installed and its matrix products are written for that CPU,
    otherwise torch. On a CUDA device it takes torch: the search of Market-1501 is a product of 0.7 TFLOP,
    a fraction of a second for any GPU, and FAISS would need memory of its own beside that of torch.

    Raises:
        ConfigError: FAISS is requested but not installed.
    """
    if backend == "faiss" and not HAS_FAISS:
        raise ConfigError("FAISS is asked for and not installed", f"{_INSTALL}, or take torch")
    if backend == "torch" or not HAS_FAISS:
        return "torch"
    if device.type != "cuda":
        return "faiss-cpu" if backend == "faiss" or _faiss_knows_this_cpu() else "torch"
    if backend == "auto":
        return "torch"
    return "faiss-gpu" if faiss.get_num_gpus() else "faiss-cpu"


@cache
def _faiss_knows_this_cpu() -> bool:
    """Whether the OpenBLAS in FAISS's wheel has kernels for this CPU.

    On a newer CPU, this OpenBLAS falls back to the kernels of a Prescott of 2004, which are five times slower
    than torch's (docs/performance.md).
    """
    return not any(
        library.get("architecture") == "Prescott" and "faiss" in library["filepath"]
        for library in threadpool_info()
    )


def knn(
    features: FeatureRows,
    k: int,
    *,
    backend: Backend = "auto",
    device: torch.device = _CPU,
    block_bytes: int = BLOCK_BYTES,
) -> Neighbours:
    """The k rows of ``features`` with the largest inner product with each row, including the row itself.

    Candidates of equal similarity come in index order with every library; between two libraries, only
    candidates whose similarities differ by rounding (less than 1e-6) may change places.

    Args:
        features: (N, D) unit rows.
        k: Number of neighbours per row, cut to N.
        backend: Library, as in `choose_backend`.
        device: Device that computes the products.
        block_bytes: Bytes of scratch memory of the torch search.

    Returns:
        Neighbours with (N, min(k, N)) indices and similarities, most similar first.

    Raises:
        ConfigError: FAISS is requested but not installed.
        DataError: A feature is not a finite number.
        MemoryLimitError: FAISS is requested and finds no memory on the GPU.

    >>> knn([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], k=2).indices.tolist()
    [[0, 1], [1, 2], [2, 1]]
    """
    array = as_features(features)
    k = min(k, len(array))
    if k < 1:
        return Neighbours(np.empty((len(array), 0), np.int64), np.empty((len(array), 0), np.float32))
    fetched = min(k + 1, len(array))  # one more, to see whether the cut goes through equals
    chosen = choose_backend(backend, device)
    if chosen == "torch":
        indices, similarities = _search_torch(array, fetched, device, block_bytes)
    elif chosen == "faiss-gpu":
        similarities, indices = _search_faiss_gpu(array, fetched, device)
    else:
        similarities, indices = faiss.knn(array, array, fetched, metric=faiss.METRIC_INNER_PRODUCT)
    cut_through = np.zeros(len(array), bool)
    if fetched > k:
        cut_through = similarities[:, k - 1] == similarities[:, k]
    indices, similarities = indices[:, :k].astype(np.int64), similarities[:, :k].copy()
    if cut_through.any():  # which of the equals were taken is up to the library: search again, by our rule
        indices[cut_through], similarities[cut_through] = search_by_rule(
            array[cut_through], array, k, device, block_bytes
        )
    return _in_order(indices, similarities)


def approximate_knn(features: FeatureRows, k: int) -> tuple[Neighbours, float]:
    """`knn` by an inverted-file index of FAISS, and its recall; meant for half a million images or more.

    Returns:
        Neighbours as from `knn`, of which some are missed, and the share of true neighbours found for 1,000
        rows.

    Raises:
        ConfigError: FAISS is not installed.
        DataError: A feature is not a finite number.
    """
    if not HAS_FAISS:
        raise ConfigError(
            "an approximate search needs FAISS, which is not installed", f"{_INSTALL}, or search exactly"
        )
    array = as_features(features)
    k = min(k, len(array))
    lists = max(1, round(4 * len(array) ** 0.5))
    index: Any = faiss.index_factory(array.shape[1], f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    faiss.ParameterSpace().set_index_parameter(index, "nprobe", max(1, lists // 32))
    index.cp.seed = 0
    index.cp.max_points_per_centroid = 64
    index.train(array)
    index.add(array)
    similarities, indices = index.search(array, k)
    # A list that runs out answers -1: the image itself, which is always its own neighbour, stands there.
    missing = indices < 0
    indices[missing] = np.nonzero(missing)[0]
    similarities[missing] = 1.0
    tested = np.linspace(0, len(array) - 1, min(_RECALL_QUERIES, len(array))).astype(np.int64)
    exact, _ = search_by_rule(array[tested], array, k)
    found = [len(np.intersect1d(one, other)) for one, other in zip(exact, indices[tested], strict=True)]
    return _in_order(indices.astype(np.int64), similarities), sum(found) / exact.size


def _in_order(indices: IntArray, similarities: FloatArray) -> Neighbours:
    order = np.lexsort((indices, -similarities), axis=1)
    return Neighbours(
        np.take_along_axis(indices, order, axis=1), np.take_along_axis(similarities, order, axis=1)
    )


def _search_torch(
    array: FloatArray, k: int, device: torch.device, block_bytes: int
) -> tuple[IntArray, FloatArray]:
    everything = torch.from_numpy(array).to(device)
    indices = np.empty((len(array), k), np.int64)
    similarities = np.empty((len(array), k), np.float32)
    rows = max(1, block_bytes // (4 * len(array)))
    for start in range(0, len(array), rows):
        part = slice(start, start + rows)
        values, positions = (everything[part] @ everything.T).topk(k, dim=1)
        indices[part], similarities[part] = positions.cpu().numpy(), values.cpu().numpy()
    return indices, similarities


def _search_faiss_gpu(array: FloatArray, k: int, device: torch.device) -> tuple[FloatArray, IntArray]:
    torch.cuda.empty_cache()  # FAISS cannot use what torch keeps of freed memory
    number = -1 if device.index is None else device.index  # -1: the current one
    with named_when_full(device, "FAISS searches beside the network: give --set search.backend=torch"):
        # The memory that FAISS sets aside for itself ends with these resources.
        found: tuple[FloatArray, IntArray] = faiss.knn_gpu(
            faiss.StandardGpuResources(),
            array,
            array,
            k,
            metric=faiss.METRIC_INNER_PRODUCT,
            device=number,
        )
    return found


def search_by_rule(
    queries: FloatArray,
    array: FloatArray,
    k: int,
    device: torch.device = _CPU,
    block_bytes: int = BLOCK_BYTES,
) -> tuple[IntArray, FloatArray]:
    """Positions in ``array``, ascending, and similarities, (Q, k) each; equals at the cut: the first."""
    everything = torch.from_numpy(array).to(device)
    rows = max(1, block_bytes // (8 * len(array)))
    indices, similarities = [], []
    for block in torch.split(torch.from_numpy(queries), rows):
        products = block.to(device) @ everything.T
        least = products.topk(k, dim=1).values[:, -1:]
        above, equal = products > least, products == least
        room = k - above.sum(dim=1, keepdim=True)
        kept = above | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= room))
        indices.append(kept.nonzero()[:, 1].view(-1, k).cpu())
        similarities.append(products[kept].view(-1, k).cpu())
    return torch.cat(indices).numpy(), torch.cat(similarities).numpy()
