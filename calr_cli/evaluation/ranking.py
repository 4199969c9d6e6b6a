"""mAP and CMC of a distance matrix."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from calr_cli.errors import DataError
from calr_cli.types import RetrievalMetrics

MAX_RANK = 50


def ranking_metrics(
    distmat: npt.ArrayLike,
    q_pids: npt.ArrayLike,
    g_pids: npt.ArrayLike,
    q_camids: npt.ArrayLike,
    g_camids: npt.ArrayLike,
) -> RetrievalMetrics:
    """Retrieval metrics of a (Q, G) distance matrix, smaller is nearer.

    For each query, gallery images of its own identity AND camera are left out; junk (pid -1) is
    dropped; a query without a match is skipped. Average precision is scikit-learn's
    ``average_precision_score`` of the negated distances: non-interpolated, gallery images at equal
    distance count as one threshold. CMC looks at the first match only and breaks ties by gallery index.

    Args:
        distmat: (Q, G) distances.
        q_pids: (Q,) identities of the queries.
        g_pids: (G,) identities of the gallery.
        q_camids: (Q,) cameras of the queries.
        g_camids: (G,) cameras of the gallery.

    Raises:
        DataError: Shapes that do not fit each other, a distance that is not a number, or no query
            with a match.

    >>> ranking_metrics([[0.1, 0.2, 0.3]], [7], [8, 7, 7], [0], [0, 1, 1]).mAP
    0.5833333333333333
    """
    distances = np.asarray(distmat)
    if distances.ndim != 2:
        raise DataError(f"distmat has shape {distances.shape}, expected (queries, gallery images)")
    return metrics_by_query(distances, distances.shape, q_pids, g_pids, q_camids, g_camids)


def metrics_by_query(
    rows: Iterable[npt.NDArray[np.floating]],
    shape: tuple[int, ...],
    q_pids: npt.ArrayLike,
    g_pids: npt.ArrayLike,
    q_camids: npt.ArrayLike,
    g_camids: npt.ArrayLike,
) -> RetrievalMetrics:
    """`ranking_metrics` of a matrix of ``shape`` from its rows, so that it never has to exist whole."""
    q_pids, g_pids = np.asarray(q_pids), np.asarray(g_pids)
    q_camids, g_camids = np.asarray(q_camids), np.asarray(g_camids)
    given = {"q_pids": q_pids, "g_pids": g_pids, "q_camids": q_camids, "g_camids": g_camids}
    for name, values in given.items():
        length, of = (shape[0], "queries") if name.startswith("q_") else (shape[1], "gallery images")
        if values.shape != (length,):
            raise DataError(f"{name} has shape {values.shape}, but there are {length} {of}")
    average_precisions: list[float] = []
    first_matches: list[int] = []
    for row, pid, camid in zip(rows, q_pids, q_camids, strict=True):
        if pid == -1:
            continue
        same_pid = g_pids == pid
        valid = ~(same_pid & (g_camids == camid)) & (g_pids != -1)
        distances = row[valid]
        matches = np.flatnonzero(same_pid[valid])
        if not len(matches):
            continue
        if not np.isfinite(distances).all():
            raise DataError("a distance between query and gallery is not a finite number")
        match_distances = np.sort(distances[matches])
        # Only values are sorted: the rank of a match is the number of images at most as far away.
        retrieved = np.searchsorted(np.sort(distances), match_distances, side="right")
        relevant = np.searchsorted(match_distances, match_distances, side="right")
        average_precisions.append(float((relevant / retrieved).mean()))
        nearest = matches[np.argmin(distances[matches])]
        ahead = (distances < distances[nearest]).sum() + (distances[:nearest] == distances[nearest]).sum()
        first_matches.append(int(ahead))
    if not average_precisions:
        raise DataError("no query has a match in the gallery: an image of its identity from another camera")
    ranks = min(MAX_RANK, len(g_pids))
    hits = np.bincount(np.minimum(first_matches, ranks), minlength=ranks + 1)[:ranks]
    cmc = hits.cumsum() / len(first_matches)
    return RetrievalMetrics(float(np.mean(average_precisions)), cmc, len(average_precisions))
