"""How much each cluster counts in the loss: more, the more evenly cameras see it."""

from __future__ import annotations

import numpy as np

from calr_cli.types import OUTLIER, FloatArray, IntArray


def cluster_weights(labels: IntArray, camids: IntArray) -> FloatArray:
    """Weight of each cluster in the loss: ln(1 + H), where H is the entropy (ln) of its cameras.

    Args:
        labels: (N,) labels, ``OUTLIER`` or 0..K-1 with every cluster present.
        camids: (N,).

    Returns:
        (K,) float32; 0 for a cluster that only one camera sees.
    """
    kept = np.asarray(labels) != OUTLIER
    if not kept.any():
        return np.empty(0, np.float32)
    labels, camids = np.asarray(labels)[kept], np.asarray(camids)[kept]
    histogram = np.zeros((int(labels.max()) + 1, int(camids.max()) + 1))
    np.add.at(histogram, (labels, camids), 1)
    share = histogram / histogram.sum(axis=1, keepdims=True)
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(axis=1)
    weights: FloatArray = np.log1p(entropy).astype(np.float32)
    return weights
