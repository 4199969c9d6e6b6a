"""The optimiser and its schedule."""

from __future__ import annotations

from collections.abc import Iterable

from torch.nn import Parameter
from torch.optim import Adam


def build_optimiser(parameters: Iterable[Parameter], *, lr: float, weight_decay: float) -> Adam:
    """Adam, its arithmetic in one pass over the weights.

    Args:
        parameters: Those that are frozen are left out.
        lr: Learning rate at the start.
        weight_decay: L2 penalty in the gradient.
    """
    return Adam([p for p in parameters if p.requires_grad], lr=lr, weight_decay=weight_decay, fused=True)


def scheduled_lr(epoch: int, *, lr: float, step_size: int, gamma: float) -> float:
    """The learning rate of an epoch, counted from 0: multiplied by ``gamma`` every ``step_size`` epochs."""
    return float(lr * gamma ** (epoch // step_size))
