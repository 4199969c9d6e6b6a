"""The representative image, or pivot, of each global cluster."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from calr_cli.clustering.infomap import links
from calr_cli.types import OUTLIER, IntArray, Neighbours

PivotRule = Literal["best", "last"]


def neighbourhood_scores(neighbours: Neighbours, min_similarity: float) -> npt.NDArray[np.float64]:
    """How dense an image's neighbourhood is: the sum of 1 / (d + mean d) over its links.

    Args:
        neighbours: Of N images; d is 1 - similarity, its mean taken over all N x k entries.
        min_similarity: Links below it are left out.

    Returns:
        (N,) scores, 0 for an image without links.
    """
    distances = 1 - neighbours.similarities.astype(np.float64)
    closeness = np.where(links(neighbours, min_similarity), distances + distances.mean(), np.inf)
    return (1 / closeness).sum(axis=1)


def select_pivots(labels: IntArray, scores: npt.NDArray[np.float64], rule: PivotRule = "best") -> IntArray:
    """One pivot per cluster among its members that score above the mean of ALL images.

    Args:
        labels: (N,) global labels.
        scores: (N,) neighbourhood scores.
        rule: ``best`` takes the highest score (the first in record order of equal ones); ``last``
            the last candidate in record order.

    Returns:
        (K,) positions of the pivots, -1 for a cluster without a candidate.

    Differs from the reference: it takes the last candidate in FILE order, and file names start
    with the identity; record order here does not depend on names.

    >>> import numpy as np
    >>> select_pivots(np.array([0, 0, 1, -1]), np.array([3.0, 4.0, 0.5, 0.5])).tolist()
    [1, -1]
    """
    labels = np.asarray(labels)
    pivots = np.full(int(labels.max(initial=OUTLIER)) + 1, -1, np.int64)
    candidates = np.flatnonzero((labels != OUTLIER) & (scores > scores.mean()))
    if rule == "best":
        candidates = candidates[np.lexsort((-candidates, scores[candidates]))]
    pivots[labels[candidates]] = candidates  # the last one written wins
    return pivots
