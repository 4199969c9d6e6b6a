"""Draws the images that make up the batches of an epoch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from calr_cli.types import OUTLIER, IntArray


def cluster_batches(
    labels: IntArray,
    camids: IntArray,
    *,
    batch_size: int,
    num_instances: int,
    iterations: int,
    rng: np.random.Generator,
) -> IntArray:
    """Batches of a few images from each of many clusters, preferably from other cameras.

    A pass takes the clusters in random order. Each cluster gives a random anchor and ``num_instances - 1``
    more images: from other cameras than the anchor's if the cluster has any, and from the same camera
    otherwise; with replacement if there are fewer candidates than ``num_instances``. A singleton gives one
    image, outliers give none. A pass is cut into batches, its last partial batch is dropped, and passes
    follow each other until there are enough batches.

    Args:
        labels: (N,) pseudo labels.
        camids: (N,).
        batch_size: Number of images per batch; if one pass has fewer, the batch shrinks to the pass.
        num_instances: Number of images per cluster.
        iterations: Number of batches to draw.
        rng: Source of all draws.

    Returns:
        (iterations, B) positions, B = ``batch_size`` or the size of a pass.

    Raises:
        ValueError: Every image is an outlier.
    """
    kept = np.flatnonzero(labels != OUTLIER)
    if not len(kept):
        raise ValueError("every image is an outlier: there is nothing to sample")
    order = kept[np.argsort(labels[kept], kind="stable")]
    members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    batch_size = min(batch_size, sum(num_instances if len(m) > 1 else 1 for m in members))

    batches: list[IntArray] = []
    while len(batches) < iterations:
        stream = np.concatenate(
            [_instances(members[c], camids, num_instances, rng) for c in rng.permutation(len(members))]
        )
        whole = len(stream) // batch_size * batch_size
        batches.extend(stream[:whole].reshape(-1, batch_size))
    return np.stack(batches[:iterations])


def _instances(
    members: IntArray, camids: IntArray, num_instances: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    anchor = rng.choice(members)
    if len(members) == 1 or num_instances == 1:
        return np.array([anchor])
    candidates = members[camids[members] != camids[anchor]]
    if not len(candidates):
        candidates = members[members != anchor]
    others = rng.choice(candidates, num_instances - 1, replace=len(candidates) < num_instances)
    return np.concatenate([[anchor], others])
