"""All that an interrupted training needs to go on to the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calr_cli.distributed import collectives
from calr_cli.errors import CheckpointError
from calr_cli.figures import EpochFigures, epoch_from_json, to_json
from calr_cli.training.checkpoint import load_state, save_state
from calr_cli.training.networks import Networks


@dataclass
class EpochUnderWay:
    """An epoch between its labels and its end.

    Attributes:
        labels: Whatever the stage trains on, tensors by name.
        rows: (R, D) rows of each contrastive loss as they are now, by its name.
        seconds: Spent on its steps before the training, by the name of the step.
        losses: (T, 2) of the iterations done.
    """

    labels: dict[str, Tensor]
    rows: dict[str, Tensor]
    seconds: dict[str, float]
    losses: Tensor = field(default_factory=lambda: torch.zeros(0, 2))


@dataclass
class TrainingState:
    """The networks, and where their training stands.

    Draws of random numbers follow from the seed, the epoch and the iteration, and the learning rate from
    the epoch: no generator and no schedule has a state of its own.

    Attributes:
        networks: With their optimiser.
        images: Digest of the training images in their order, which labels are kept in.
        epoch: Whole epochs done.
        under_way: The one after them, if it has begun.
        figures: Of the epochs done.
        best: Whatever the stage remembers of its best epoch: tensors and plain values by name.
    """

    networks: Networks
    images: str
    epoch: int = 0
    under_way: EpochUnderWay | None = None
    figures: list[EpochFigures] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)

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
            "images": self.images,
            "networks": self.networks.state_dict(),
            "epoch": self.epoch,
            "under_way": None if self.under_way is None else vars(self.under_way),
            "figures": [to_json(row) for row in self.figures],
            "best": self.best,
        }
        save_state(path, state)

    def restore(self, path: Path) -> bool:
        """Take up what rank 0 finds in ``path``; False if there is nothing.

        Raises:
            CheckpointError: Damaged, of another network, of an older calr, or of other images.
        """
        state = collectives.broadcast(load_state(path) if collectives.is_main() and path.exists() else None)
        if state is None:
            return False
        require_current(state, path)
        if state["images"] != self.images:
            raise CheckpointError(
                f"{path} is the state of a training on other images: the dataset was prepared again since, "
                "and the labels in it would go to the wrong images",
                "Start a new run, or prepare the dataset as it was",
            )
        self.networks.load_state_dict(state["networks"])
        self.epoch, self.best = state["epoch"], state["best"]
        self.figures = [epoch_from_json(row) for row in state["figures"]]
        self.under_way = None if state["under_way"] is None else EpochUnderWay(**state["under_way"])
        return True

    def position(self) -> str:
        """Where it stands, for people: ``after 3 epochs and 20 iterations``."""
        iterations = 0 if self.under_way is None else len(self.under_way.losses)
        return f"after {self.epoch} epochs" + (f" and {iterations} iterations" if iterations else "")


def require_current(state: Mapping[str, Any], path: Path) -> None:
    """Raise unless the content of the state file ``path`` is of this version.

    Raises:
        CheckpointError: An older version wrote it.
    """
    if "networks" not in state:
        raise CheckpointError(
            f"{path} was written by an older version of calr, which kept less of a run",
            "Resume it with that version, or start a new run",
        )
