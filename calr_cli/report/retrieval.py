"""What a model finds: per query, per pair of cameras, and how similar pairs of images are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from calr_cli.distances.euclidean import distance_blocks
from calr_cli.errors import DataError
from calr_cli.evaluation.ranking import metrics_of_blocks
from calr_cli.evaluation.retrieval import retrieval_metrics
from calr_cli.types import UNKNOWN_PID, Dataset, FloatArray, IntArray, RetrievalMetrics

SHOWN = 10
"""Number of images of a ranked list."""

_BINS = 400
_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Retrieval:
    """The results of Q queries in a gallery.

    Attributes:
        metrics: Metrics over all queries.
        nearest: (Q, SHOWN) gallery images, nearest first, including images from the query's own camera.
        similarities: (Q, SHOWN) cosine similarities of these images.
        camera_map: (C, C) mAP of the queries of one camera in the gallery of another, NaN if no query has a
            match.
        same: (B,) number of pairs of one identity in two cameras, by similarity.
        different: (B,) number of pairs of two identities, by similarity.
        edges: (B + 1,) edges of the bins.
    """

    metrics: RetrievalMetrics
    nearest: IntArray
    similarities: FloatArray
    camera_map: npt.NDArray[np.float64]
    same: IntArray
    different: IntArray
    edges: npt.NDArray[np.float64]

    def by_precision(self) -> IntArray:
        """The queries that have a match, best average precision first; equal queries stay in order."""
        precision = self.metrics.average_precision
        order: IntArray = np.argsort(-precision, kind="stable")
        return order[: self.metrics.num_queries]

    def same_accepted(self, share: float) -> tuple[float, float]:
        """The similarity that ``share`` of different pairs reach, and the share of same pairs that do."""
        passing = self.different[::-1].cumsum()[::-1] / max(int(self.different.sum()), 1)
        bin_ = int(np.argmax(passing <= share)) if (passing <= share).any() else len(passing) - 1
        return float(self.edges[bin_]), float(self.same[bin_:].sum() / max(int(self.same.sum()), 1))


def look_at_retrieval(
    q_features: FloatArray, g_features: FloatArray, dataset: Dataset, device: torch.device
) -> Retrieval:
    """Rank the gallery for every query, a block of queries at a time.

    Args:
        q_features: (Q, D) unit rows.
        g_features: (G, D) unit rows.
        dataset: Dataset whose query and gallery images have identities.
        device: Device that computes the distances.

    Raises:
        DataError: No query has a match.
    """
    query, gallery = dataset.query, dataset.gallery
    truth = (query.pids, gallery.pids, query.camids, gallery.camids)
    queries, others = (torch.from_numpy(rows).to(device) for rows in (q_features, g_features))
    g_pids, g_camids = (torch.from_numpy(values).to(device) for values in (gallery.pids, gallery.camids))
    nearest: list[Tensor] = []
    similarities: list[Tensor] = []
    same, different = torch.zeros(_BINS, device=device), torch.zeros(_BINS, device=device)

    def watched() -> Iterator[Tensor]:
        """The blocks of distances on their way to the metrics."""
        nonlocal same, different
        done = 0
        for block in distance_blocks(queries, others, _BLOCK_BYTES):
            rows = slice(done, done + len(block))
            pids = torch.from_numpy(query.pids[rows]).to(device)[:, None]
            camids = torch.from_numpy(query.camids[rows]).to(device)[:, None]
            found = block.topk(min(SHOWN, block.shape[1]), largest=False)
            nearest.append(found.indices.cpu())
            similarities.append((1 - found.values / 2).cpu())
            is_own = pids == g_pids
            similarity = 1 - block / 2
            same = same + _histogram(similarity[is_own & (camids != g_camids) & (pids != UNKNOWN_PID)])
            different = different + _histogram(similarity[~is_own & (g_pids != UNKNOWN_PID)])
            done += len(block)
            yield block

    metrics = metrics_of_blocks(watched(), (len(query), len(gallery)), *truth)
    return Retrieval(
        metrics,
        torch.cat(nearest).numpy(),
        torch.cat(similarities).numpy(),
        _camera_map(queries, others, dataset),
        same.cpu().numpy().astype(np.int64),
        different.cpu().numpy().astype(np.int64),
        np.linspace(-1, 1, _BINS + 1),
    )


def _histogram(similarities: Tensor) -> Tensor:
    return similarities.float().clamp(-1, 1).histc(_BINS, -1, 1).double()


def _camera_map(queries: Tensor, gallery: Tensor, dataset: Dataset) -> npt.NDArray[np.float64]:
    q_camids, g_camids = dataset.query.camids, dataset.gallery.camids
    cameras = int(max(q_camids.max(), g_camids.max())) + 1
    result = np.full((cameras, cameras), np.nan)
    for a in np.unique(q_camids):
        for b in np.unique(g_camids):
            if a == b:
                continue  # matches within one camera do not count
            q, g = np.flatnonzero(q_camids == a), np.flatnonzero(g_camids == b)
            truth = (dataset.query.pids[q], dataset.gallery.pids[g], q_camids[q], g_camids[g])
            rows = (queries[torch.from_numpy(q)], gallery[torch.from_numpy(g)])
            rows = (queries[torch.from_numpy(q)], gallery[torch.from_numpy(g)])
            try:
                found = retrieval_metrics(*rows, *truth, block_bytes=_BLOCK_BYTES)
            except DataError:
                continue  # no query of this camera has a match in that one
            result[a, b] = found.mAP
    return result
