"""Gradient reversal: the identity forwards, a sign change backwards."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class GradientReversal(torch.autograd.Function):
    """See `reverse_gradient`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float) -> Tensor:
        """Remember ``alpha`` and pass ``x`` on."""
        ctx.alpha = alpha
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        """Reverse the gradient; ``alpha`` has none."""
        return -ctx.alpha * grad_outputs[0], None


def reverse_gradient(x: Tensor, alpha: float) -> Tensor:
    """Return ``x`` (any shape); in the backward pass its gradient is multiplied by ``-alpha``.

    The layers after it learn to do their task, the layers before it learn to make that task impossible.

    Source: Ganin, Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015.
    """
    reversed_x: Tensor = GradientReversal.apply(x, alpha)
    return reversed_x
