"""The program `calr` with a refinement that discards nothing and weighs images in the loss instead.

    python benchmarks/soft_weights.py train-inter -d market1501 --recipe plus

An image weighs as much as the evidence of its camera is for it: how many images its local cluster has among
those of its global cluster in its camera, over how many the largest local cluster has there. recipes.py
measures it. On one device only, since other processes would have the ordinary refinement; and an epoch that
was interrupted cannot be resumed.
"""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from calr_cli.cli.app import main
from calr_cli.method import inter
from calr_cli.training import objective
from calr_cli.types import OUTLIER, FloatArray, IntArray


def evidence(global_labels: IntArray, local_labels: IntArray, camids: IntArray) -> FloatArray:
    """(N,) weights from 0 to 1; 1 for outliers."""
    _, local, sizes = np.unique(
        np.stack([global_labels, camids, local_labels]), axis=1, return_inverse=True, return_counts=True
    )
    _, place = np.unique(np.stack([global_labels, camids]), axis=1, return_inverse=True)
    own, place = sizes[local.reshape(-1)], place.reshape(-1)
    largest = np.zeros(place.max() + 1)
    np.maximum.at(largest, place, own)
    return np.where(global_labels == OUTLIER, 1, own / largest[place])


class SoftRefinement:
    """Stands for `refine_by_camera`: keeps every label, and the images' weights for the steps that follow."""

    weights: FloatArray

    def refine(
        self, global_labels: IntArray, local_labels: IntArray, camids: IntArray, pivots: IntArray
    ) -> IntArray:
        """The labels as they are."""
        self.weights = evidence(global_labels, local_labels, camids)
        return global_labels


if __name__ == "__main__":
    soft = SoftRefinement()

    class SoftObjective(objective.Objective):
        """Weighs the images of a batch by their evidence."""

        def shares(self, batch: IntArray) -> npt.NDArray[np.float64]:
            """(B,) which add up to 1."""
            shares: npt.NDArray[np.float64] = super().shares(batch) * soft.weights[batch]
            shares /= shares.sum()
            return shares

    with (
        patch.object(inter, "refine_by_camera", soft.refine),
        patch.object(inter, "Objective", SoftObjective),
    ):
        main()
