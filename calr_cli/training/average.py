"""A running average of a network's weights and statistics."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from calr_cli.models.encoder import Encoder


class RunningAverage(nn.Module):
    """The network whose numbers follow those of another: a <- share a + (1 - share) w after every step.

    The first update copies. All numbers of one type are moved by one operation, and the host never waits for
    the device. Counters of batches are copied.

    Source: Tarvainen and Valpola, "Mean teachers are better role models", NIPS 2017.

    Args:
        encoder: The network that is followed, on its device.
        share: Of the old average, 0..1.

    Attributes:
        module: The average; computes as ``encoder`` does.
    """

    def __init__(self, encoder: Encoder, share: float) -> None:
        super().__init__()
        self.module = deepcopy(encoder)
        self.share = share
        self.n_averaged: Tensor
        self.register_buffer("n_averaged", torch.zeros((), dtype=torch.int64))  # stays on the host

    @torch.no_grad()
    def follow(self, encoder: Encoder) -> None:
        """Move the average towards ``encoder``."""
        ours, theirs = _tensors(self.module), _tensors(encoder)
        is_float = [tensor.is_floating_point() for tensor in ours]
        for floats in (True, False):
            mine = [tensor for tensor, float_ in zip(ours, is_float, strict=True) if float_ == floats]
            other = [tensor for tensor, float_ in zip(theirs, is_float, strict=True) if float_ == floats]
            if floats and self.n_averaged:
                torch._foreach_lerp_(mine, other, 1 - self.share)
            else:
                torch._foreach_copy_(mine, other)
        self.n_averaged += 1


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*(parameter.detach() for parameter in network.parameters()), *network.buffers()]
