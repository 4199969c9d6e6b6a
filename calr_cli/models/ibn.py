"""IBN-a: instance and batch normalisation side by side, on half of the channels each."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models.resnet import ResNet


class InstanceBatchNorm(nn.Module):
    """Instance-normalises the first half of the channels and batch-normalises the rest.

    Instance normalisation removes an image's own contrast and colour cast, which differ between cameras;
    batch normalisation keeps what distinguishes identities.

    Source: Pan, Luo, Shi, Tang, "Two at Once: Enhancing Learning and Generalization Capacities via
    IBN-Net", ECCV 2018. The names ``IN`` and ``BN`` are those of the published weight files.

    Args:
        num_channels: C, the number of channels.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.split = num_channels // 2
        self.IN = nn.InstanceNorm2d(self.split, affine=True)
        self.BN = nn.BatchNorm2d(num_channels - self.split)

    def forward(self, feature_map: Tensor) -> Tensor:
        """Normalise ``feature_map`` (B, C, H, W)."""
        first, rest = feature_map[:, : self.split], feature_map[:, self.split :]
        # torch normalises instances in one layout only; convolutions are faster in the other.
        instances = self.IN(first.contiguous()).contiguous(memory_format=torch.channels_last)
        return torch.cat([instances, self.BN(rest.contiguous(memory_format=torch.channels_last))], dim=1)


def with_ibn_a(resnet: ResNet) -> ResNet:
    """Replace ``bn1`` of every block in layers 1 to 3 of a fresh ``resnet``, and return it.

    Layer 4 stays as it is: at that depth instance statistics would erase the differences between identities.
    """
    for stage in (resnet.layer1, resnet.layer2, resnet.layer3):
        for block in stage:
            block.bn1 = InstanceBatchNorm(cast(nn.BatchNorm2d, block.bn1).num_features)
    return resnet
