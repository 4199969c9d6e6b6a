"""The optimiser and its schedule."""

from __future__ import annotations

from collections.abc import Iterable

from torch.nn import Parameter
from torch.optim import Adam
from torch.optim.lr_scheduler import StepLR


def build_optimiser(
    parameters: Iterable[Parameter], *, lr: float, weight_decay: float, step_size: int, gamma: float
) -> tuple[Adam, StepLR]:
    """Adam, and a schedule that multiplies its learning rate by ``gamma`` every ``step_size`` epochs.

    Args:
        parameters: Those that are frozen are left out.
        lr: Learning rate at the start.
        weight_decay: L2 penalty in the gradient.
        step_size: Epochs.
        gamma: Factor.
    """
    optimiser = Adam([p for p in parameters if p.requires_grad], lr=lr, weight_decay=weight_decay, fused=True)
    return optimiser, StepLR(optimiser, step_size=step_size, gamma=gamma)
