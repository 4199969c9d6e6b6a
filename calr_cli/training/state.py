"""All that an interrupted training needs to go on to the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from calr_cli.distributed import collectives
from calr_cli.models.camera_classifier import CameraClassifier
from calr_cli.models.encoder import Encoder
from calr_cli.training.checkpoint import load_state, save_state


@dataclass
class EpochUnderWay:
    """An epoch between its labels and its end.

    Attributes:
        labels: Whatever the stage trains on, tensors by name.
        centroids: (K, D) rows of the memory as they are now.
        losses: (T, 2) of the iterations done.
        seconds: Spent on its steps before the training.
        proxies: (P, D) rows of the camera proxies as they are now; none without them.
    """

    labels: dict[str, Tensor]
    centroids: Tensor
    losses: Tensor
    seconds: dict[str, float]
    proxies: Tensor = field(default_factory=lambda: torch.zeros(0, 0))


@dataclass
class TrainingState:
    """The networks, the optimiser, and where the training stands.

    Draws of random numbers follow from the seed, the epoch and the iteration, and the learning rate from
    the epoch: no generator and no schedule has a state of its own.

    Attributes:
        average: Running average of the encoder's weights and statistics, where that is the model.
        epoch: Whole epochs done.
        under_way: The one after them, if it has begun.
        rows: Figures of the epochs done.
        best: Whatever the stage remembers of its best epoch.
    """

    encoder: Encoder
    classifier: CameraClassifier | None
    optimiser: Optimizer
    average: AveragedModel | None = None
    epoch: int = 0
    under_way: EpochUnderWay | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> Encoder:
        """The network to be used in the end: the average where there is one, else the encoder."""
        return self.encoder if self.average is None else cast(Encoder, self.average.module)

    def save(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Write everything to ``path``, whole or not at all, with the settings it was made under.

        Ranks other than 0 write nothing: they have the same.

        Raises:
            OSError: The folder cannot be written or the disk is full.
        """
        if not collectives.is_main():
            return
        state = {
            "settings": dict(settings),
            "encoder": self.encoder.state_dict(),
            "classifier": {} if self.classifier is None else self.classifier.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
            "epoch": self.epoch,
            "under_way": None if self.under_way is None else vars(self.under_way),
            "rows": self.rows,
            "best": self.best,
        }
        save_state(path, state)

    def restore(self, path: Path) -> bool:
        """Take up what rank 0 finds in ``path``; False if there is nothing.

        Raises:
            CheckpointError: Damaged, or of another network.
        """
        state = collectives.broadcast(load_state(path) if collectives.is_main() and path.exists() else None)
        if state is None:
            return False
        self.encoder.load_state_dict(state["encoder"])
        if self.classifier is not None:
            self.classifier.load_state_dict(state["classifier"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.epoch, self.rows, self.best = state["epoch"], state["rows"], state["best"]
        self.under_way = None if state["under_way"] is None else EpochUnderWay(**state["under_way"])
        return True

    def position(self) -> str:
        """Where it stands, for people: ``after 3 epochs and 20 iterations``."""
        iterations = 0 if self.under_way is None else len(self.under_way.losses)
        return f"after {self.epoch} epochs" + (f" and {iterations} iterations" if iterations else "")
