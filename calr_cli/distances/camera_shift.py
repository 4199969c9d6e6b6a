"""Removes from features what a camera changes in all of its images alike."""

from __future__ import annotations

import numpy as np

from calr_cli.types import FloatArray, IntArray

FEWEST = 16
"""Images of a camera from which mean and scale say something of the camera and not of who stood there."""


def standardise_by_camera(features: FloatArray, camids: IntArray, fewest: int = 1) -> FloatArray:
    """Give all cameras' features the same mean and spread, so that neighbours do not prefer their own camera.

    Each dimension is shifted and scaled within a camera to mean 0 and standard deviation 1. A dimension
    that hardly varies there is scaled no further than a thousandth of the root mean square of all numbers.

    Args:
        features: (N, D) unit rows, so that the root mean square is 1 / sqrt(D).
        camids: (N,).
        fewest: Cameras with fewer images take mean and deviation of all images.

    Returns:
        (N, D) float32 unit rows; a row of zeros, such as the row of a camera's only image, stays 0.

    >>> import numpy as np
    >>> shifted = np.array([[1.0, 0.0], [0.0, 1.0], [9.0, 8.0], [8.0, 9.0]])
    >>> np.sign(standardise_by_camera(shifted, np.array([0, 0, 1, 1]))).tolist()
    [[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]]
    """
    result = np.empty(features.shape, np.float32)
    least = 1e-3 / np.sqrt(max(1, features.shape[1]))
    for camid in np.unique(camids):
        rows = np.flatnonzero(camids == camid)
        own = features[rows].astype(np.float64)
        counted = own if len(rows) >= fewest else features.astype(np.float64)
        result[rows] = (own - counted.mean(axis=0)) / (counted.std(axis=0) + least)
    lengths = np.linalg.norm(result, axis=1, keepdims=True)
    result /= np.where(lengths > 0, lengths, 1)
    return result
