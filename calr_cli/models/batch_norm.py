"""Batch normalisation over groups of images, whatever the number of devices.

A batch is cut into contiguous groups, and the network sees one group at a time, so batch norms need no notion
of groups. Only the running statistics do: they follow the first group of each batch, as they followed the
first device in programs that ran on several devices.

Source: Ioffe, Szegedy, "Batch Normalization", ICML 2015; statistics of a part of the batch: Hoffer, Hubara,
Soudry, "Train longer, generalize better", NeurIPS 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def batch_norm_groups(batch_size: int, group_size: int) -> list[slice]:
    """The groups of a batch: ``group_size`` images each; the last may differ, but is no single image.

    >>> batch_norm_groups(150, 64)
    [slice(0, 64, None), slice(64, 128, None), slice(128, 150, None)]
    >>> batch_norm_groups(129, 64)
    [slice(0, 64, None), slice(64, 129, None)]

    Args:
        batch_size: Number of images of the whole batch.
        group_size: Number of images of a group; 0 for one group.
    """
    if group_size == 0 or batch_size <= group_size + 1:
        return [slice(0, batch_size)]
    starts = list(range(0, batch_size - 1, group_size))  # a last single image joins the group before it
    return [slice(*ends) for ends in zip(starts, [*starts[1:], batch_size], strict=True)]


def rank_groups(batch_size: int, group_size: int, ranks: int) -> list[list[slice]]:
    """The groups of each rank: contiguous, in order, and as even as whole groups allow.

    >>> rank_groups(256, 64, 2)
    [[slice(0, 64, None), slice(64, 128, None)], [slice(128, 192, None), slice(192, 256, None)]]

    Ranks share a group only if it is the whole batch (``group_size`` 0): each rank gets a part of it, and the
    batch norms have to be synchronised.
    """
    if group_size == 0:
        cuts = [batch_size * rank // ranks for rank in range(ranks + 1)]
        return [[slice(*ends)] for ends in pairwise(cuts)]
    groups = batch_norm_groups(batch_size, group_size)
    cuts = [-(-len(groups) * rank // ranks) for rank in range(ranks + 1)]  # rank 0 has the first group
    return [groups[start:stop] for start, stop in pairwise(cuts)]


@contextmanager
def fixed_running_statistics(network: nn.Module) -> Iterator[None]:
    """A context in which a network in training mode does not change its running statistics."""
    tracking = [m for m in network.modules() if isinstance(m, BATCH_NORMS) and m.track_running_stats]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation with statistics over the images of all ranks, on any device.

    torch's own version works only on GPUs. The state has the names and values of the replaced batch norm.
    """

    def __init__(self, replaced: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__(replaced.num_features, replaced.eps, replaced.momentum)
        self.weight, self.bias = replaced.weight, replaced.bias
        self.running_mean, self.running_var = replaced.running_mean, replaced.running_var
        self.num_batches_tracked = replaced.num_batches_tracked

    def _check_input_dim(self, input: Tensor) -> None:  # (B, C) and (B, C, H, W) alike
        pass

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input`` (B, C) or (B, C, H, W)."""
        if not self.training:
            return super().forward(input)
        x = input if input.dtype == torch.float64 else input.float()
        dims = [d for d in range(x.ndim) if d != 1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = all_reduce(x.new_full((1,), x.numel() / x.shape[1]))  # a tensor of a list would be waited for
        mean = all_reduce(x.sum(dims)) / count
        centred = x - mean.view(shape)
        variance = all_reduce(centred.square().sum(dims)) / count
        if self.track_running_stats:
            assert self.momentum is not None
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normalised: Tensor = centred * scale.view(shape) + self.bias.view(shape)
        return normalised.to(input.dtype)


def synchronise_batch_norms(network: nn.Module) -> None:
    """Replace every batch norm of ``network`` by one over the images of all ranks, with its parameters."""
    for name, child in network.named_children():
        if isinstance(child, BATCH_NORMS):
            setattr(network, name, SynchronisedBatchNorm(child))
        else:
            synchronise_batch_norms(child)
