"""The network that turns images into features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from calr_cli.models.backbones import build_backbone
from calr_cli.models.pooling import build_pooling


class Encoder(nn.Module):
    """Backbone, pooling, BatchNorm neck, L2 norm; randomly initialised.

    The same unit-length feature is used in training and in testing.

    Args:
        arch: One of ``backbones.ARCHS``.
        pooling: ``gem`` or ``avg``.

    Attributes:
        feature_dim: D, the length of a feature.
        precision: Type in which the backbone computes: ``torch.bfloat16``, or the type of its weights.
            Weights, statistics of batch norms, pooling and features keep the type of the weights.

    Raises:
        ConfigError: ``arch`` or ``pooling`` is unknown.
    """

    def __init__(self, arch: str, pooling: str = "gem") -> None:
        super().__init__()
        self.arch = arch
        self.pooling_name = pooling
        self.pooling = build_pooling(pooling)
        self.backbone, self.feature_dim = build_backbone(arch)
        self.neck = nn.BatchNorm1d(self.feature_dim)
        # A trainable shift would move all features off the origin, about which cosines are taken.
        self.neck.bias.requires_grad_(False)
        self.precision = torch.float32
        self.to(memory_format=torch.channels_last)  # the faster layout; loading weights keeps it

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.neck.weight.device

    def forward(self, images: Tensor) -> Tensor:
        """Encode ``images`` (B, 3, H, W), normalised, to unit-length features (B, D)."""
        kind = images.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.precision == torch.bfloat16):
            feature_map = self.backbone(images)
        with torch.autocast(kind, enabled=False):  # whoever calls this under autocast gets no other feature
            pooled = self.pooling(feature_map.to(images.dtype))
            return functional.normalize(self.neck(pooled), dim=1)
