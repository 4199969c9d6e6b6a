from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from calr_cli.errors import ConfigError
from calr_cli.models.backbones import CONVOLUTIONAL, IBN_BASE, TINY, FullPrecisionConv2d, build_backbone
from calr_cli.models.ibn import InstanceBatchNorm

CHANNELS = {"resnet18": 512, "resnet34": 512, "mobilenet_v2": 1280, "resnet_tiny": 256}


@pytest.mark.parametrize("arch", CONVOLUTIONAL)
def test_feature_map_is_a_sixteenth_of_the_image(arch: str) -> None:
    """Stride 32 (a 2 x 1 map here) would mean that the last stage still halves the map."""
    backbone, channels = build_backbone(arch)
    with torch.no_grad():
        feature_map = backbone.eval()(torch.randn(1, 3, 64, 32))
    assert channels == CHANNELS.get(arch, 2048)
    assert feature_map.shape == (1, channels, 4, 2)


@pytest.mark.parametrize("arch", [arch for arch in CONVOLUTIONAL if arch not in (*IBN_BASE, TINY)])
def test_key_names_and_shapes_are_torchvisions(arch: str) -> None:
    """Published ImageNet files must load without renaming."""
    with torch.device("meta"):
        published = get_model(arch, weights=None).state_dict()
        own = build_backbone(arch)[0].state_dict()
    expected = {k: v.shape for k, v in published.items() if not k.startswith(("fc.", "classifier."))}
    assert {k: v.shape for k, v in own.items()} == expected


def test_only_the_last_stage_lost_its_stride() -> None:
    """A bottleneck strides in conv2, a basic block in conv1; both also in the short cut."""
    for arch, conv in (("resnet50", "conv2"), ("resnet18", "conv1"), ("resnet_tiny", "conv1")):
        backbone, _ = build_backbone(arch)
        strides = {name: m.stride for name, m in backbone.named_modules() if isinstance(m, nn.Conv2d)}
        assert strides[f"layer4.0.{conv}"] == strides["layer4.0.downsample.0"] == (1, 1)
        assert strides[f"layer3.0.{conv}"] == strides["layer3.0.downsample.0"] == (2, 2)


def test_weights_are_random_and_follow_the_seed() -> None:
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(build_backbone("resnet18")[0].state_dict()["layer4.1.conv2.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_ibn_is_in_layers_one_to_three_only() -> None:
    backbone, _ = build_backbone("resnet_ibn101a")
    names = [name for name, module in backbone.named_modules() if isinstance(module, InstanceBatchNorm)]
    blocks = ((1, 3), (2, 4), (3, 23))
    assert names == [f"layer{stage}.{i}.bn1" for stage, count in blocks for i in range(count)]


def test_unknown_arch_names_the_nearest_and_all() -> None:
    with pytest.raises(ConfigError) as error:
        build_backbone("resnet_ibn50")
    assert error.value.lines() == [
        "unknown arch 'resnet_ibn50' (did you mean 'resnet_ibn50a'?). Known: resnet18, resnet34, resnet50, "
        "resnet101, resnet152, resnet_ibn50a, resnet_ibn101a, mobilenet_v2, resnet_tiny, vit_small, "
        "vit_base, vit_small_ics"
    ]
    with pytest.raises(ConfigError, match=r"^unknown arch 'vit'\. Known: resnet18, "):
        build_backbone("vit")


def test_strided_depthwise_convolutions_ignore_autocast_in_training_and_keep_names_and_types() -> None:
    network, _ = build_backbone("mobilenet_v2")
    changed = [layer for layer in network.modules() if isinstance(layer, FullPrecisionConv2d)]
    assert [layer.stride for layer in changed] == [(2, 2)] * 3
    assert [layer.groups for layer in changed] == [96, 144, 192]
    layer = changed[0]
    images = torch.randn(2, 96, 8, 4).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(images)
        with torch.no_grad():
            without_gradient = layer(images)
            plain = torch.nn.functional.conv2d(images, layer.weight, None, 2, 1, 1, 96)
    assert torch.equal(without_gradient, plain)
    assert found.dtype == torch.bfloat16
    exact = torch.nn.functional.conv2d(images.float(), layer.weight, None, 2, 1, 1, 96)
    assert torch.equal(found, exact.bfloat16())
