"""The architectures; convolutional backbones: an image batch in, a feature map out."""

from __future__ import annotations

import difflib
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.models import get_model

from calr_cli.errors import ConfigError
from calr_cli.models.ibn import with_ibn_a
from calr_cli.models.tiny import TinyResNet
from calr_cli.models.vit import VITS

IBN_BASE = {"resnet_ibn50a": "resnet50", "resnet_ibn101a": "resnet101"}
"""The torchvision network behind each IBN architecture."""

TINY = "resnet_tiny"
"""The architecture without published weights."""

CONVOLUTIONAL: tuple[str, ...] = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    *IBN_BASE,
    "mobilenet_v2",
    TINY,
)
"""The convolutional architectures."""

ARCHS = (*CONVOLUTIONAL, *VITS)
"""The architectures, by their names for users."""


def check_arch(arch: str) -> None:
    """Raise unless ``arch`` is one of ``ARCHS``.

    Raises:
        ConfigError: ``arch`` is unknown.
    """
    if arch in ARCHS:
        return
    nearest = difflib.get_close_matches(arch, ARCHS, n=1)
    question = f" (did you mean '{nearest[0]}'?)" if nearest else ""
    raise ConfigError(f"unknown arch '{arch}'{question}", f"Known: {', '.join(ARCHS)}")


def build_backbone(arch: str) -> tuple[nn.Module, int]:
    """A randomly initialised network without classifier, whose last stage has stride 1.

    The state dict keeps the key names of torchvision (and of IBN-Net), so that published ImageNet
    files load without renaming.

    Args:
        arch: One of ``CONVOLUTIONAL``.

    Returns:
        The network, which maps images (B, 3, H, W) to feature_map (B, C, ceil(H / 16), ceil(W / 16)); and C.

    Raises:
        ConfigError: ``arch`` is unknown.
    """
    check_arch(arch)
    network = TinyResNet() if arch == TINY else get_model(IBN_BASE.get(arch, arch), weights=None)
    if arch in IBN_BASE:
        network = with_ibn_a(network)
    if arch == "mobilenet_v2":
        feature_dim = int(network.last_channel)
        last_stage = network.features[14]  # the last block that halves the map
        children = OrderedDict(features=network.features)
    else:
        feature_dim = int(network.fc.in_features)
        last_stage = network.layer4
        children = OrderedDict(
            (name, child) for name, child in network.named_children() if name not in ("avgpool", "fc")
        )
    for layer in last_stage.modules():
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1 and layer.stride != (1, 1):
            layer.__class__ = FullPrecisionConv2d  # the same weights under the same name
    return nn.Sequential(children), feature_dim


class FullPrecisionConv2d(nn.Conv2d):
    """A convolution that trains in the type of its weights, even under autocast.

    CPUs have no fast kernel for the bf16 gradient of a strided depthwise convolution: three such layers took
    half of a step of MobileNetV2. If no gradient will be computed, autocast decides as usual.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``input`` (B, C, H, W); the type of the result is that of ``input``."""
        if not torch.is_grad_enabled():
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype)).to(input.dtype)
