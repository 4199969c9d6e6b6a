"""mAP, mINP and CMC of a distance matrix, or of its blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from calr_cli.errors import DataError
from calr_cli.evaluation.ground_truth import GroundTruth, OwnImages
from calr_cli.evaluation.ranks import match_ranks
from calr_cli.types import IntArray, RetrievalMetrics

MAX_RANK = 50

_BLOCK_BYTES = 32 * 2**20
_CHUNK_BYTES = 8 * 2**20


def ranking_metrics(
    distmat: npt.ArrayLike | Tensor,
    q_pids: npt.ArrayLike,
    g_pids: npt.ArrayLike,
    q_camids: npt.ArrayLike,
    g_camids: npt.ArrayLike,
) -> RetrievalMetrics:
    """Retrieval metrics of a (Q, G) distance matrix, smaller is nearer.

    For each query, gallery images of the same identity AND camera are left out; junk (pid -1) is dropped; a
    query without a match is skipped. Gallery images at equal distance count as one threshold in two metrics:
    average precision is scikit-learn's ``average_precision_score`` of the negated distances (not
    interpolated), and mINP is the share of matches among the images up to the farthest match (Ye et al.,
    "Deep Learning for Person Re-identification: A Survey and Outlook", TPAMI 2021). CMC considers only the
    first match and breaks ties by gallery index.

    The function reads the matrix in blocks: a memory map, an array, or a tensor on any device.

    Args:
        distmat: (Q, G) distances; float32 and float64 are ranked as they are.
        q_pids: (Q,) identities of the queries.
        g_pids: (G,) identities of the gallery.
        q_camids: (Q,) cameras of the queries.
        g_camids: (G,) cameras of the gallery.

    Raises:
        DataError: There is no query, no gallery image or no query with a match, shapes do not fit each
            other, or a distance is not a finite number.

    >>> ranking_metrics([[0.1, 0.2, 0.3]], [7], [8, 7, 7], [0], [0, 1, 1]).mAP
    0.5833333333333333
    """
    distances = distmat.detach() if isinstance(distmat, Tensor) else np.asarray(distmat)
    if distances.ndim != 2:
        raise DataError(f"distmat has shape {tuple(distances.shape)}, expected (queries, gallery images)")
    shape = (distances.shape[0], distances.shape[1])
    rows = max(1, _BLOCK_BYTES // (8 * max(shape[1], 1)))
    blocks = (_floats(distances[start : start + rows]) for start in range(0, shape[0], rows))
    return metrics_of_blocks(blocks, shape, q_pids, g_pids, q_camids, g_camids)


def _floats(block: npt.NDArray[np.generic] | Tensor) -> Tensor:
    """A block as float32 if that loses nothing, and as float64 otherwise."""
    if not isinstance(block, Tensor):
        block = torch.from_numpy(np.array(block))  # a copy: torch would warn of an array that is read-only
    if block.dtype in (torch.float32, torch.float64):
        return block
    return block.float() if block.dtype in (torch.float16, torch.bfloat16) else block.double()


def metrics_of_blocks(
    blocks: Iterable[Tensor],
    shape: tuple[int, int],
    q_pids: npt.ArrayLike,
    g_pids: npt.ArrayLike,
    q_camids: npt.ArrayLike,
    g_camids: npt.ArrayLike,
) -> RetrievalMetrics:
    """`ranking_metrics` of a matrix of ``shape`` that never has to exist as a whole.

    Besides the block the function needs about 30 MB, and 200 MB if all images have one identity.

    Args:
        blocks: Consecutive rows of the matrix, (rows, G) each, float32 or float64, on any device. The
            function does not change a block and no longer needs it when it asks for the next one.
        shape: (Q, G).
        q_pids: (Q,) identities of the queries.
        g_pids: (G,) identities of the gallery.
        q_camids: (Q,) cameras of the queries.
        g_camids: (G,) cameras of the gallery.
    """
    truth = GroundTruth(shape, q_pids, g_pids, q_camids, g_camids)
    average_precision, penalty = np.full(shape[0], np.nan), np.full(shape[0], np.nan)
    first_match = np.full(shape[0], -1, np.int64)
    for start, chunk in _chunks(blocks, shape):
        own = truth.own_images(slice(start, start + len(chunk)))
        # The most matches first: the rows that have a j-th match are then the first ones.
        order = np.argsort(-own.counts, kind="stable")[: np.count_nonzero(own.counts)]
        if not len(order):
            continue
        counts = own.counts[order]
        ranks = match_ranks(_counted(chunk, order, own, truth.junk, start), own.matches[order], counts)
        rows, places = np.nonzero(np.arange(ranks.relevant.shape[1]) < counts[:, None])
        precisions = ranks.relevant[rows, places] / ranks.retrieved[rows, places]
        average_precision[start + order] = np.bincount(rows, precisions) / counts
        penalty[start + order] = counts / ranks.retrieved[np.arange(len(order)), counts - 1]
        first_match[start + order] = ranks.first_match
    counted = first_match >= 0
    if not counted.any():
        raise DataError("no query has a match in the gallery: an image of its identity from another camera")
    last = min(MAX_RANK, shape[1])
    hits = np.bincount(np.minimum(first_match[counted], last), minlength=last + 1)[:last]
    return RetrievalMetrics(
        mAP=float(average_precision[counted].mean()),
        cmc=hits.cumsum() / counted.sum(),
        num_queries=int(counted.sum()),
        mINP=float(penalty[counted].mean()),
        average_precision=average_precision,
        first_match=first_match,
    )


def _chunks(blocks: Iterable[Tensor], shape: tuple[int, int]) -> Iterator[tuple[int, Tensor]]:
    """A few rows of the blocks at a time, each time with the number of the first row."""
    done = 0
    for block in blocks:
        assert block.shape[1] == shape[1]
        rows = max(1, _CHUNK_BYTES // (block.element_size() * shape[1]))
        for chunk in torch.split(block, rows):
            yield done, chunk
            done += len(chunk)
    assert done == shape[0]


def _counted(chunk: Tensor, order: IntArray, own: OwnImages, junk: IntArray, start: int) -> Tensor:
    """The rows ``order`` of the chunk, with infinity for images that are left out.

    Raises:
        DataError: A distance of another image is not finite.
    """
    distances = chunk[torch.from_numpy(order).to(chunk.device)]
    is_finite = bool(distances.sum().isfinite())  # a sum may overflow, which only costs a closer look
    place = np.full(len(chunk), -1)
    place[order] = np.arange(len(order))
    rows, columns = place[own.left_out[0]], own.left_out[1]
    rows, columns = rows[rows >= 0], columns[rows >= 0]
    left_out = torch.from_numpy(np.stack([rows, columns])).to(chunk.device)
    distances[left_out[0], left_out[1]] = torch.inf
    distances[:, torch.from_numpy(junk).to(chunk.device)] = torch.inf
    if not is_finite:
        infinite = (~distances.isfinite()).sum(dim=1).cpu().numpy()
        is_bad = infinite > np.bincount(rows, minlength=len(order)) + len(junk)
        if is_bad.any():
            query = start + int(order[is_bad].min())
            raise DataError(f"the distances of query {query} are not all finite numbers")
    return distances
