"""The network that turns images into features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from calr_cli.data.augment import HALF, IMAGENET
from calr_cli.models.backbones import build_backbone
from calr_cli.models.pooling import build_pooling
from calr_cli.models.vit import VITS, VisionTransformer, build_token_pooling


class Encoder(nn.Module):
    """Backbone, pooling, BatchNorm neck, L2 norm; randomly initialised.

    The same unit-length feature is used in training and in testing.

    Args:
        arch: One of ``backbones.ARCHS``.
        pooling: ``gem`` or ``avg``; of a vision transformer ``cls`` or ``avg``.
        height: Of the input, pixels: a vision transformer is made for one size.
        width: Of the input, pixels.

    Attributes:
        feature_dim: D, the length of a feature.
        statistics: By which pixels are normalised before they come in.
        drop_path: Rate of `vit.draw_kept_branches` in training.
        precision: Type in which the backbone computes: ``torch.bfloat16``, or the type of its weights.
            Weights, statistics of batch norms, pooling and features keep the type of the weights.

    Raises:
        ConfigError: ``arch`` or ``pooling`` is unknown.
    """

    backbone: nn.Module
    pooling: nn.Module

    def __init__(self, arch: str, pooling: str = "gem", height: int = 256, width: int = 128) -> None:
        super().__init__()
        self.arch = arch
        self.pooling_name = pooling
        if arch in VITS:
            self.pooling = build_token_pooling(pooling)
            self.backbone, self.feature_dim = VisionTransformer(arch, height, width), VITS[arch].dim
        else:
            self.pooling = build_pooling(pooling)
            self.backbone, self.feature_dim = build_backbone(arch)
        self.statistics = HALF if arch in VITS else IMAGENET
        self.drop_path = 0.0
        self.neck = nn.BatchNorm1d(self.feature_dim)
        # A trainable shift would move all features off the origin, about which cosines are taken.
        self.neck.bias.requires_grad_(False)
        self.precision = torch.float32
        self.to(memory_format=torch.channels_last)  # the faster layout; loading weights keeps it

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.neck.weight.device

    def forward(self, images: Tensor, kept_branches: Tensor | None = None) -> Tensor:
        """Encode ``images`` (B, 3, H, W), normalised, to unit-length features (B, D).

        ``kept_branches`` (B, 24) is for a vision transformer in training, from `vit.draw_kept_branches`.
        """
        kind = images.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.precision == torch.bfloat16):
            feature_map = self.backbone(images, *([] if kept_branches is None else [kept_branches]))
        with torch.autocast(kind, enabled=False):  # whoever calls this under autocast gets no other feature
            pooled = self.pooling(feature_map.to(images.dtype))
            return functional.normalize(self.neck(pooled), dim=1)
