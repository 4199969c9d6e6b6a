"""The objective of an epoch: its contrastive losses, the weights of clusters, the alignment of cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from calr_cli.models.camera_classifier import CameraClassifier
from calr_cli.training.losses import CameraLoss, camera_loss, image_shares
from calr_cli.transfer import to_device
from calr_cli.types import FloatArray, IntArray


class Term(Protocol):
    """A contrastive loss in one epoch: images against rows that move with every batch."""

    @property
    def weight(self) -> float:
        """Factor of the loss."""
        ...

    @property
    def rows(self) -> Tensor:
        """(R, D), as they are now; a resumed epoch begins with these."""
        ...

    def losses(self, features: Tensor, positions: IntArray) -> Tensor:
        """The loss of each image.

        Args:
            features: (B, D) with a gradient.
            positions: (B,) which of the N training images they are of.

        Returns:
            (B,).
        """
        ...

    def update(self, features: Tensor, positions: IntArray) -> None:
        """Move the rows after a step.

        Args:
            features: (B, D) of the whole batch, without a gradient.
            positions: (B,).
        """
        ...


class Loss(Protocol):
    """A contrastive loss over all epochs: makes the term of each one from its labels."""

    def start(self, features: FloatArray, labels: IntArray, camids: IntArray) -> FloatArray:
        """The rows that an epoch begins with; only the first process is asked.

        Args:
            features: (N, D) unit rows, as the network sees the images before the epoch.
            labels: (N,) labels to train on: ``OUTLIER`` or 0..K-1.
            camids: (N,).

        Returns:
            (R, D).
        """
        ...

    def __call__(self, rows: Tensor, labels: IntArray, camids: IntArray) -> Term:
        """The term of an epoch.

        Args:
            rows: (R, D) from `start`, or from an interrupted epoch's `Term.rows`; on the device.
            labels: (N,).
            camids: (N,).
        """
        ...


@dataclass(frozen=True)
class CameraAlignment:
    """The adversarial part of stage 2: a camera classifier behind gradient reversal.

    Attributes:
        classifier: Takes features (B, D).
        weight: Factor of its loss.
        kind: How the loss is computed.
    """

    classifier: CameraClassifier
    weight: float
    kind: CameraLoss


class Objective:
    """What the steps of an epoch minimise.

    Args:
        terms: Contrastive losses, which add up by their weights.
        labels: (N,) labels to train on.
        camids: (N,).
        class_weights: (K,) weight of each cluster; None weighs all alike.
        alignment: Adds the weighted loss of a camera classifier.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        labels: IntArray,
        camids: IntArray,
        class_weights: FloatArray | None = None,
        alignment: CameraAlignment | None = None,
    ) -> None:
        self.terms, self.alignment = terms, alignment
        self._labels, self._camids, self._class_weights = labels, camids, class_weights

    def shares(self, batch: IntArray) -> npt.NDArray[np.float64]:
        """(B,) each image's share of the batch's mean loss; see `losses.image_shares`."""
        return image_shares(self._labels[batch], self._class_weights)

    def losses(self, features: Tensor, positions: IntArray) -> Tensor:
        """The contrastive losses (B,) of images at ``positions`` with ``features`` (B, D)."""
        first, *others = self.terms
        total = first.losses(features, positions)
        if first.weight != 1:
            total = first.weight * total
        for term in others:
            total = total + term.weight * term.losses(features, positions)
        return total

    def camera_loss(self, logits: Tensor, positions: IntArray) -> Tensor:
        """The mean loss, unweighted, of the classifier's ``logits`` (B, C) of images at ``positions``."""
        assert self.alignment is not None
        camids = to_device(self._camids[positions], logits.device)
        return camera_loss(logits, camids, self.alignment.kind)

    @torch.no_grad()
    def update(self, features: Tensor, batch: IntArray) -> None:
        """Move the rows of all terms by the ``features`` (B, D) of the whole ``batch`` (B,)."""
        for term in self.terms:
            term.update(features, batch)
