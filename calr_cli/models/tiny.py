"""A residual network small enough to learn something on any CPU within a minute."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock


class TinyResNet(ResNet):  # type: ignore[misc]  # torchvision has no types
    """ResNet-10, one basic block per stage, with half the usual channels after the first convolution.

    Layers and keys have the names of torchvision's ResNet-18. Nobody has published weights.
    """

    def __init__(self) -> None:
        super().__init__(BasicBlock, [1, 1, 1, 1])
        self.fc = nn.Linear(256, 1)

    def _make_layer(self, block: Any, planes: int, *arguments: Any, **options: Any) -> Any:
        return super()._make_layer(block, planes // 2, *arguments, **options)
