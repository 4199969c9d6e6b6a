"""Pools a feature map into one vector per image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from calr_cli.errors import ConfigError


class GeneralisedMeanPooling(nn.Module):
    """Generalised mean over all positions, ``(mean x^p)^(1/p)``, with one trainable ``p``.

    With p = 1 this is average pooling; a larger p is closer to max pooling.

    Source: Radenovic, Tolias, Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation",
    TPAMI 2019.

    Args:
        p: Initial exponent.
        eps: Lower bound of activations, so that powers and their gradients are finite.
    """

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), p))
        self.eps = eps

    def forward(self, feature_map: Tensor) -> Tensor:
        """Pool ``feature_map`` (B, C, H, W) to (B, C)."""
        pooled: Tensor = _GeneralisedMean.apply(feature_map, self.p, self.eps)
        return pooled


class _GeneralisedMean(torch.autograd.Function):
    """The generalised mean y = m^(1/p), m the mean of E = x^p; the gradients reuse E.

    With autograd, the formula takes another power of every activation and is three times slower on a CPU
    (benchmarks/pooling.py).
    """

    @staticmethod
    def forward(ctx: Any, feature_map: Tensor, p: Tensor, eps: float) -> Tensor:
        powers = feature_map.clamp(min=eps).pow(p)
        mean = powers.mean(dim=(2, 3))
        pooled = mean.pow(1 / p)
        ctx.save_for_backward(feature_map, p, powers, mean, pooled)
        ctx.eps = eps
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        feature_map, p, powers, mean, pooled = ctx.saved_tensors
        clamped = feature_map.clamp(min=ctx.eps)
        scaled = gradient * pooled / p
        of_mean = scaled / mean / feature_map.shape[2:].numel()
        weighted = powers * of_mean[:, :, None, None]  # dL/dE E
        of_p = clamped.log().mul_(weighted).sum() - (scaled * mean.log()).sum() / p
        of_map = torch.ops.aten.threshold_backward(weighted.mul_(p).div_(clamped), feature_map, ctx.eps)
        return of_map, of_p.reshape(p.shape), None


class AveragePooling(nn.Module):
    """Mean over all positions."""

    def forward(self, feature_map: Tensor) -> Tensor:
        """Pool ``feature_map`` (B, C, H, W) to (B, C)."""
        return feature_map.mean(dim=(2, 3))


def build_pooling(name: str) -> nn.Module:
    """The pooling called ``gem`` or ``avg``, (B, C, H, W) to (B, C).

    Raises:
        ConfigError: ``name`` is neither.
    """
    if name == "gem":
        return GeneralisedMeanPooling()
    if name == "avg":
        return AveragePooling()
    raise ConfigError(f"unknown pooling '{name}'", "Known: gem, avg")
