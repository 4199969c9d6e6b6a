"""mAP and CMC of features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from calr_cli.distances.knn import Features, as_features
from calr_cli.distances.rerank import euclidean_squared
from calr_cli.errors import DataError
from calr_cli.evaluation.ranking import metrics_by_query
from calr_cli.types import RetrievalMetrics

_BLOCK_BYTES = 64 * 2**20


def retrieval_metrics(
    q_features: Features,
    g_features: Features,
    q_pids: npt.ArrayLike,
    g_pids: npt.ArrayLike,
    q_camids: npt.ArrayLike,
    g_camids: npt.ArrayLike,
) -> RetrievalMetrics:
    """Retrieval metrics by Euclidean distance; see `ranking_metrics` for the protocol.

    Args:
        q_features: (Q, D).
        g_features: (G, D).
        q_pids: (Q,) identities of the queries.
        g_pids: (G,) identities of the gallery.
        q_camids: (Q,) cameras of the queries.
        g_camids: (G,) cameras of the gallery.

    Raises:
        DataError: Features that are not finite, shapes that do not fit each other, or no query with a
            match.
    """
    queries, gallery = as_features(q_features), as_features(g_features)
    if queries.shape[1] != gallery.shape[1]:
        raise DataError(f"queries have {queries.shape[1]} dimensions, the gallery has {gallery.shape[1]}")

    def rows() -> Iterator[npt.NDArray[np.float32]]:
        block = max(1, _BLOCK_BYTES // (4 * max(len(gallery), 1)))
        for start in range(0, len(queries), block):
            yield from euclidean_squared(queries[start : start + block], gallery)

    shape = (len(queries), len(gallery))
    return metrics_by_query(rows(), shape, q_pids, g_pids, q_camids, g_camids)
