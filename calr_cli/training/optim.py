"""The optimiser and its schedule."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.nn import Parameter
from torch.optim import SGD, Adam, AdamW, Optimizer


def build_optimiser(
    parameters: Iterable[Parameter],
    *,
    lr: float,
    weight_decay: float,
    name: str = "adam",
    momentum: float = 0.9,
    decayed: str = "all",
) -> Optimizer:
    """An optimiser whose arithmetic is one pass over the weights.

    Args:
        parameters: Those that are frozen are left out.
        lr: Learning rate at the start.
        weight_decay: L2 penalty in the gradient; ``adamw`` shrinks the weights instead.
        name: ``adam``, ``adamw`` or ``sgd``.
        momentum: Share of its last step that ``sgd`` keeps.
        decayed: ``all``, or ``matrices``: weights of two and four dimensions, which norms, biases, class
            tokens and position embeddings are not.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups: list[Any] = trained
    if decayed == "matrices":
        free = [parameter for parameter in trained if parameter.ndim not in (2, 4)]
        groups = [
            {"params": [parameter for parameter in trained if parameter.ndim in (2, 4)]},
            {"params": free, "weight_decay": 0.0, "decays": False},
        ]
    if name == "sgd":
        return SGD(groups, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)
    kind = AdamW if name == "adamw" else Adam
    return kind(groups, lr=lr, weight_decay=weight_decay, fused=True)


def set_rates(optimiser: Optimizer, *, lr: float, weight_decay: float) -> None:
    """Give all groups this learning rate, and those that decay this weight decay."""
    for group in optimiser.param_groups:
        group["lr"] = lr
        if group.get("decays", True):
            group["weight_decay"] = weight_decay


def scheduled_lr(epoch: int, *, lr: float, step_size: int, gamma: float, warmup_epochs: int = 0) -> float:
    """The learning rate of an epoch, counted from 0: multiplied by ``gamma`` every ``step_size`` epochs.

    Over the first ``warmup_epochs`` it rises in equal steps, of which the last is ``lr``.
    """
    rise = min(1.0, (epoch + 1) / warmup_epochs) if warmup_epochs else 1.0
    return float(lr * gamma ** (epoch // step_size) * rise)
