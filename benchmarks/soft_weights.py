"""The program `calr` with a refinement that discards nothing and weighs images in the loss instead.

    python benchmarks/soft_weights.py train-inter -d market1501 --recipe plus

An image weighs as much as the evidence of its camera is for it: how many images its local cluster has among
those of its global cluster in its camera, over how many the largest local cluster has there. recipes.py
measures it. On one device only, since other processes would have the ordinary refinement; and an epoch that
was interrupted cannot be resumed.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from torch import Tensor

from calr_cli.cli.app import main
from calr_cli.method import labels as epoch_labels
from calr_cli.training import epoch, step
from calr_cli.training.losses import image_shares
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
    of_batch: FloatArray

    def refine(
        self, global_labels: IntArray, local_labels: IntArray, camids: IntArray, pivots: IntArray
    ) -> IntArray:
        """The labels as they are."""
        self.weights = evidence(global_labels, local_labels, camids)
        return global_labels

    def shares(
        self, labels: npt.NDArray[Any], weights: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[np.float64]:
        """Stands for `image_shares`, of the batch of the step."""
        per_image: npt.NDArray[np.float64] = image_shares(labels, weights) * self.of_batch
        per_image /= per_image.sum()
        return per_image


if __name__ == "__main__":
    soft = SoftRefinement()

    class SoftStep(step.TrainingStep):
        """Says which images a step is of."""

        def __call__(self, iteration: int, batch: IntArray, pixels: Tensor) -> Tensor:
            """Take the step."""
            soft.of_batch = soft.weights[batch]
            return super().__call__(iteration, batch, pixels)

    with (
        patch.object(epoch_labels, "refine_by_camera", soft.refine),
        patch.object(epoch, "TrainingStep", SoftStep),
        patch.object(step, "image_shares", soft.shares),
    ):
        main()
