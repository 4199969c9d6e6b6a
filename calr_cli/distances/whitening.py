"""Weakens the directions in which images of one group differ from each other."""

from __future__ import annotations

import numpy as np

from calr_cli.types import OUTLIER, FloatArray, IntArray

_FLOOR = 2.0
"""What is added to each variance, in units of their mean: so few groups do not turn noise into directions."""


def whiten_within(features: FloatArray, labels: IntArray) -> FloatArray:
    """Scale features so that images of one group vary alike, and little, in all directions.

    Poses, light and crops move the images of an identity along some directions more than along others.
    Similarities get better if these directions count less, even if some of the groups are wrong.

    Source: Hatch et al., "Within-class covariance normalization for SVM-based speaker recognition",
    Interspeech 2006; here the classes are clusters, and the covariance is shrunk.

    Args:
        features: (N, D) rows.
        labels: (N,) groups, 0..K-1 or ``OUTLIER``; outliers are scaled and not counted.

    Returns:
        (N, D) float32 unit rows; the features themselves if no group has two images.
    """
    sizes = np.bincount(labels[labels != OUTLIER])
    counted = np.flatnonzero((labels != OUTLIER) & (sizes[labels] > 1) if len(sizes) else labels >= 0)
    if not len(counted):
        return features
    members, groups = features[counted].astype(np.float64), labels[counted]
    means = np.zeros((len(sizes), features.shape[1]))
    np.add.at(means, groups, members)
    members -= (means / np.maximum(sizes, 1)[:, None])[groups]
    variances, directions = np.linalg.eigh(members.T @ members / len(members))
    scales = 1 / np.sqrt(np.maximum(variances, 0) + _FLOOR * variances.mean() + np.finfo(np.float32).tiny)
    whitened: FloatArray = (features @ (directions * scales).astype(np.float32)).astype(np.float32)
    lengths = np.linalg.norm(whitened, axis=1, keepdims=True)
    whitened /= np.where(lengths > 0, lengths, 1)
    return whitened
