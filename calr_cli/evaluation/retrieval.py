"""mAP, mINP and CMC of features, without the whole distance matrix."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from calr_cli.distances.euclidean import BLOCK_BYTES, distance_blocks, squared_lengths
from calr_cli.distances.knn import FeatureRows
from calr_cli.errors import DataError
from calr_cli.evaluation.ranking import metrics_of_blocks
from calr_cli.types import RetrievalMetrics


def retrieval_metrics(
    q_features: FeatureRows,
    g_features: FeatureRows,
    q_pids: npt.ArrayLike,
    g_pids: npt.ArrayLike,
    q_camids: npt.ArrayLike,
    g_camids: npt.ArrayLike,
    *,
    block_bytes: int = BLOCK_BYTES,
) -> RetrievalMetrics:
    """Retrieval metrics by squared Euclidean distance; see `ranking_metrics` for the protocol.

    The function computes the distances of one block of queries at a time; besides the features it needs 200
    MB, whatever their number. It works on the device of the features.

    Args:
        q_features: (Q, D).
        g_features: (G, D).
        q_pids: (Q,) identities of the queries.
        g_pids: (G,) identities of the gallery.
        q_camids: (Q,) cameras of the queries.
        g_camids: (G,) cameras of the gallery.
        block_bytes: Bytes of a block of distances.

    Raises:
        DataError: There is no query, no gallery image or no query with a match, features are not finite, or
            shapes do not fit each other.
    """
    gallery = _float_rows(g_features, "gallery image")
    queries = _float_rows(q_features, "query").to(gallery.device)
    if queries.shape[1] != gallery.shape[1]:
        raise DataError(f"queries have {queries.shape[1]} dimensions, the gallery has {gallery.shape[1]}")
    blocks = distance_blocks(queries, gallery, block_bytes)
    return metrics_of_blocks(blocks, (len(queries), len(gallery)), q_pids, g_pids, q_camids, g_camids)


def _float_rows(features: FeatureRows, of: str) -> Tensor:
    if isinstance(features, Tensor):
        rows = features.detach().float()
    else:
        rows = torch.from_numpy(np.require(features, np.float32, ["C", "W"]))  # torch warns of read-only ones
    if rows.ndim != 2:
        raise DataError(f"features have shape {tuple(rows.shape)}, expected (images, dimensions)")
    is_bad = ~squared_lengths(rows).isfinite()
    if is_bad.any():
        raise DataError(
            f"the features of {of} {int(is_bad.nonzero()[0, 0])} are not all finite numbers",
            "Lower the learning rate or check the weights that the features were made with",
        )
    return rows
