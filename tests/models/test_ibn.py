from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from calr_cli.models.backbones import build_backbone
from calr_cli.models.encoder import Encoder
from calr_cli.models.ibn import InstanceBatchNorm
from tests.conftest import GOLDEN
from tests.support.filled import fill


@pytest.fixture(scope="module")
def backbone() -> nn.Module:
    return build_backbone("resnet_ibn50a")[0]


def test_state_dict_is_that_of_the_public_checkpoint(backbone: nn.Module) -> None:
    golden = json.loads((GOLDEN / "resnet50_ibn_a_state_dict_shapes.json").read_text())
    expected = {name: tuple(shape) for name, shape in golden.items() if not name.startswith("fc.")}
    assert {name: tuple(value.shape) for name, value in backbone.state_dict().items()} == expected


def test_forward_equals_the_public_network(backbone: nn.Module) -> None:
    state = backbone.state_dict()
    backbone.load_state_dict(
        {
            name: fill(name, value.shape) if value.is_floating_point() else value
            for name, value in state.items()
        }
    )
    backbone.eval()
    golden = np.load(GOLDEN / "resnet50_ibn_a_forward.npz")
    with torch.no_grad():
        layer4 = backbone(torch.from_numpy(golden["x"]))
    np.testing.assert_allclose(layer4.numpy(), golden["layer4"], rtol=0, atol=1e-4)


def test_first_half_forgets_an_images_own_contrast_and_the_rest_does_not() -> None:
    norm = InstanceBatchNorm(6).eval()
    feature_map = torch.randn(2, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    plain, tinted = norm(feature_map), norm(feature_map * 3 + 1)
    torch.testing.assert_close(plain[:, :3], tinted[:, :3], atol=1e-4, rtol=1e-4)
    assert (plain[:, 3:] - tinted[:, 3:]).abs().max() > 1


def test_odd_channel_count_keeps_every_channel() -> None:
    assert InstanceBatchNorm(5)(torch.randn(2, 5, 4, 4)).shape == (2, 5, 4, 4)


@pytest.mark.parametrize("arch", ["resnet_ibn50a", "mobilenet_v2"])
def test_every_feature_map_stays_channels_last(arch: str) -> None:
    """A map in another layout is copied before the next convolution, which takes a pass over it."""
    encoder, elsewhere = Encoder(arch).train(), []

    def look(name: str, _: nn.Module, __: object, output: torch.Tensor) -> None:
        if output.ndim == 4 and not output.is_contiguous(memory_format=torch.channels_last):
            elsewhere.append(name)

    for name, module in encoder.backbone.named_modules():
        if not name.endswith(".IN"):  # torch normalises instances in the other layout only
            module.register_forward_hook(partial(look, name))
    encoder(torch.randn(4, 3, 64, 32).to(memory_format=torch.channels_last))
    assert not elsewhere
