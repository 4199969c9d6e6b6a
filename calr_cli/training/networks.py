"""What an optimiser trains, and the average that follows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from calr_cli.models.camera_classifier import CameraClassifier
from calr_cli.models.encoder import Encoder
from calr_cli.training.average import RunningAverage


@dataclass(frozen=True)
class Networks:
    """The networks of a training and their optimiser.

    Attributes:
        encoder: Makes the features.
        optimiser: Of the parameters of encoder and classifier.
        classifier: Of cameras, in stage 2.
        average: Running average of the encoder's weights and statistics, where that is the model.
    """

    encoder: Encoder
    optimiser: Optimizer
    classifier: CameraClassifier | None = None
    average: RunningAverage | None = None

    @property
    def model(self) -> Encoder:
        """The network to be used in the end: the average where there is one, else the encoder."""
        return self.encoder if self.average is None else self.average.module

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.encoder.device

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Those there are, by name."""
        named = {"encoder": self.encoder, "classifier": self.classifier, "average": self.average}
        return {name: module for name, module in named.items() if module is not None}

    def follow(self) -> None:
        """Move the average towards the encoder, where there is one."""
        if self.average is not None:
            self.average.follow(self.encoder)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, from which `load_state_dict` restores everything."""
        states = {name: module.state_dict() for name, module in self.modules.items()}
        return {**states, "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        for name, module in self.modules.items():
            module.load_state_dict(state[name])
        self.optimiser.load_state_dict(state["optimiser"])
