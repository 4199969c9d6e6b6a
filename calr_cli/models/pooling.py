"""From a feature map to one vector per image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from calr_cli.errors import ConfigError


class GeneralisedMeanPooling(nn.Module):
    """Generalised mean over all positions, ``(mean x^p)^(1/p)``, with one trainable ``p``.

    p = 1 is average pooling; the larger p, the closer to max pooling.

    Source: Radenovic, Tolias, Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation",
    TPAMI 2019.

    Args:
        p: Exponent to start from.
        eps: Smaller activations count as this, so that powers and their gradients are finite.
    """

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), p))
        self.eps = eps

    def forward(self, feature_map: Tensor) -> Tensor:
        """Pool ``feature_map`` (B, C, H, W) to (B, C)."""
        return feature_map.clamp(min=self.eps).pow(self.p).mean(dim=(2, 3)).pow(1 / self.p)


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
