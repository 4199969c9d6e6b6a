"""ResNet-18 with an eighth of its channels, for tests of what is done with a network, whichever it is.

A state file of both stages is 3 MB instead of 180, and a step takes milliseconds.
"""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock

from calr_cli.models import backbones

FACTOR = 8


class NarrowResNet(ResNet):
    """Keeps the names of the layers, and so the keys of a state dict."""

    def __init__(self) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2])
        self.fc = nn.Linear(512 // FACTOR, 1)

    def _make_layer(self, block: type[Any], planes: int, blocks: int, *options: Any, **named: Any) -> Any:
        return super()._make_layer(block, planes // FACTOR, blocks, *options, **named)


def use_narrow(patch: pytest.MonkeyPatch) -> None:
    """From now on ``resnet18`` is the narrow network, in this process."""
    get_model = backbones.get_model

    def chosen(name: str, **options: Any) -> nn.Module:
        return NarrowResNet() if name == "resnet18" else get_model(name, **options)

    patch.setattr(backbones, "get_model", chosen)
