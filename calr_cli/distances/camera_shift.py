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
    least = _least(features.shape[1])
    for camid in np.unique(camids):
        rows = np.flatnonzero(camids == camid)
        own = features[rows].astype(np.float64)
        counted = own if len(rows) >= fewest else features.astype(np.float64)
        result[rows] = (own - counted.mean(axis=0)) / (counted.std(axis=0) + least)
    return _unit(result)


class CameraShift:
    """`standardise_by_camera` for features that do not fit into memory, and for others by the same means.

    Args:
        num_cameras: C.
        dim: D.
    """

    def __init__(self, num_cameras: int, dim: int) -> None:
        self.counts = np.zeros(num_cameras, np.int64)
        self._sums, self._squares = np.zeros((num_cameras, dim)), np.zeros((num_cameras, dim))

    def count(self, features: FloatArray, camids: IntArray) -> None:
        """Take (N, D) unit rows of cameras (N,) into the means and scales."""
        np.add.at(self.counts, camids, 1)
        for camid in np.unique(camids):
            own = features[camids == camid].astype(np.float64)
            self._sums[camid] += own.sum(axis=0)
            self._squares[camid] += (own**2).sum(axis=0)

    def apply(self, features: FloatArray, camids: IntArray) -> FloatArray:
        """(N, D) unit rows by the means and scales of their cameras.

        Cameras of fewer than `FEWEST` images, and images without a camera (-1), take those of all images.
        """
        known = np.append(self.counts >= FEWEST, False)
        counts = np.append(np.maximum(self.counts, 1), max(self.counts.sum(), 1))[:, None]
        means = np.vstack([self._sums, self._sums.sum(axis=0)]) / counts
        squares = np.vstack([self._squares, self._squares.sum(axis=0)]) / counts
        scales = np.sqrt(np.maximum(squares - means**2, 0)) + _least(features.shape[1])
        places = np.where(known[camids], camids, len(self.counts))
        return _unit(((features - means[places]) / scales[places]).astype(np.float32))


def _least(dim: int) -> float:
    return float(1e-3 / np.sqrt(max(1, dim)))


def _unit(rows: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(lengths > 0, lengths, 1)
    return rows
