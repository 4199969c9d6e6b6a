"""Camera-aware label refinement: local labels decide which images stay in a global cluster."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from calr_cli.types import OUTLIER, IntArray


def refine_by_camera(
    global_labels: IntArray, local_labels: IntArray, camids: IntArray, pivots: IntArray
) -> IntArray:
    """Discard the images of each pivot's camera that are in its global but not in its local cluster.

    Members from other cameras stay, and so does every member of a cluster without a pivot. The pivot stays
    too, so no cluster becomes empty.

    Args:
        global_labels: (N,) clusters over all cameras, ``OUTLIER`` or 0..K-1.
        local_labels: (N,) labels made within each camera, unique over cameras.
        camids: (N,).
        pivots: (K,) position of each cluster's pivot, -1 for none.

    Returns:
        (N,) refined labels: the global ones, with discarded images made outliers.

    >>> import numpy as np
    >>> one = np.array([0, 0, 0])  # one global cluster; images 0 and 1 share a camera with the pivot 0
    >>> refine_by_camera(one, np.array([4, 5, 9]), np.array([0, 0, 1]), np.array([0])).tolist()
    [0, -1, 0]
    """
    global_labels, local_labels, camids = map(np.asarray, (global_labels, local_labels, camids))
    pivots = np.asarray(pivots)
    pivot = np.where(global_labels == OUTLIER, -1, pivots[global_labels] if len(pivots) else -1)
    discarded = (pivot >= 0) & (camids == camids[pivot]) & (local_labels != local_labels[pivot])
    return np.where(discarded, OUTLIER, global_labels)


def cosine_probability(epoch: int, epochs: int) -> float:
    """Share of discards carried out in ``epoch`` (from 0): 0.5 (1 + cos(pi epoch / (3 epochs))).

    This is the authors' self-paced schedule, which is commented out in the released program.
    """
    return 0.5 * (1 + float(np.cos(np.pi * epoch / (3 * epochs))))


def discards_by_schedule(
    global_labels: IntArray, refined_labels: IntArray, probability: float, rng: np.random.Generator
) -> IntArray:
    """Refined labels in which each discard is carried out only with ``probability``."""
    if probability >= 1:
        return refined_labels
    spared = rng.random(len(refined_labels)) >= probability
    result: npt.NDArray[np.int64] = np.where(spared, global_labels, refined_labels)
    return result
