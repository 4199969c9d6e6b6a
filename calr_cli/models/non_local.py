"""Non-local blocks, which fast-reid adds to the ResNets of its strongest models."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

NON_LOCAL = ".non_local.g.weight"
"""End of the name of a non-local block's first tensor, after the name of the block that it follows."""


class NonLocalBlock(nn.Module):
    """A block that adds to every position a sum over all positions, weighted by similarity.

    Source: Wang, Girshick, Gupta, He, "Non-local Neural Networks", CVPR 2018, in the dot-product form. The
    names are those of fast-reid's files.

    Args:
        num_channels: C, the number of channels.
        inner_channels: Number of channels in which positions are compared; 1 in fast-reid.
    """

    def __init__(self, num_channels: int, inner_channels: int = 1) -> None:
        super().__init__()
        self.theta = nn.Conv2d(num_channels, inner_channels, 1)
        self.phi = nn.Conv2d(num_channels, inner_channels, 1)
        self.g = nn.Conv2d(num_channels, inner_channels, 1)
        self.W = nn.Sequential(nn.Conv2d(inner_channels, num_channels, 1), nn.BatchNorm2d(num_channels))

    def forward(self, feature_map: Tensor) -> Tensor:
        """Map ``feature_map`` (B, C, H, W) to (B, C, H, W)."""
        theta, phi, g = (layer(feature_map).flatten(2) for layer in (self.theta, self.phi, self.g))
        # Similarities are linear in theta and phi: their (HW, HW) matrix never has to exist.
        shared = torch.einsum("bip,bjp->bij", phi, g) / g.shape[2]
        summed = torch.einsum("bip,bij->bjp", theta, shared)
        added: Tensor = self.W(summed.unflatten(2, feature_map.shape[2:]))
        return feature_map + added


def add_non_local(block: nn.Module, inner_channels: int) -> None:
    """Add a non-local block after a ResNet's ``block``, as its child ``non_local``."""
    num_channels = [layer.num_features for layer in block.modules() if isinstance(layer, nn.BatchNorm2d)][-1]
    follower = NonLocalBlock(num_channels, inner_channels)
    block.add_module("non_local", follower)
    block.register_forward_hook(lambda _block, _inputs, output: follower(output))


def non_local_at_their_blocks(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with the non-local blocks of fast-reid's files renamed to children of the blocks before them.

    In these files they are a list per stage, ``backbone.NL_2.0.``, and follow the last blocks of that stage.
    """

    def count(prefix: str) -> int:
        return len({key.split(".")[2] for key in state if key.startswith(prefix)})

    def renamed(key: str) -> str:
        if (found := re.fullmatch(r"backbone\.NL_(\d)\.(\d+)\.(.*)", key)) is None:
            return key
        stage, place, rest = found.groups()
        block = count(f"backbone.layer{stage}.") - count(f"backbone.NL_{stage}.") + int(place)
        return f"backbone.layer{stage}.{block}.non_local.{rest}"

    return {renamed(key): value for key, value in state.items()}
