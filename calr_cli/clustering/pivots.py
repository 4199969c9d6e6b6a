"""The representative image, or pivot, of each global cluster."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from calr_cli.clustering.links import links
from calr_cli.types import OUTLIER, IntArray, Neighbours

PivotRule = Literal["best", "last"]


def neighbourhood_scores(neighbours: Neighbours, min_similarity: float) -> npt.NDArray[np.float64]:
    """The density of each image's neighbourhood: the sum of 1 / (d + mean d) over its links.

    Args:
        neighbours: Neighbours of N images; d is 1 - similarity, and its mean is over all N x k entries.
        min_similarity: Links below it are left out.

    Returns:
        (N,) scores, 0 for an image without links; infinite if all features are the same.
    """
    distances = np.maximum(1 - neighbours.similarities.astype(np.float64), 0)  # rounding can pass 1
    with np.errstate(divide="ignore"):
        closeness = 1 / (distances + distances.mean())
    scores: npt.NDArray[np.float64] = np.where(links(neighbours, min_similarity), closeness, 0).sum(axis=1)
    return scores


def select_pivots(labels: npt.ArrayLike, scores: npt.ArrayLike, rule: PivotRule = "best") -> IntArray:
    """One pivot per cluster among its members that score above the mean of ALL images.

    Args:
        labels: (N,) global labels.
        scores: (N,) neighbourhood scores.
        rule: ``best`` takes the highest score (among equal scores, the first in record order); ``last`` takes
            the last candidate in record order.

    Returns:
        (K,) positions of the pivots, -1 for a cluster without a candidate.

    Differs from the reference: the released program takes the last candidate in FILE order, and file names
    start with the identity; record order does not depend on names.

    >>> import numpy as np
    >>> select_pivots(np.array([0, 0, 1, -1]), np.array([3.0, 4.0, 0.5, 0.5])).tolist()
    [1, -1]
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    pivots = np.full(int(labels.max(initial=OUTLIER)) + 1, -1, np.int64)
    candidates = np.flatnonzero((labels != OUTLIER) & (scores > scores.mean()))
    if rule == "best":
        candidates = candidates[np.lexsort((-candidates, scores[candidates]))]
    pivots[labels[candidates]] = candidates  # the last one written wins
    return pivots
