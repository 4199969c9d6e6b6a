"""Extraction may leave layers out only if the features stay the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from calr_cli.models.backbones import ARCHS
from calr_cli.models.encoder import Encoder
from calr_cli.models.folding import fold_batch_norms
from calr_cli.models.ibn import InstanceBatchNorm
from calr_cli.models.vit import VITS
from tests.support.small_vits import SMALL_VITS


def after_some_training(arch: str) -> Encoder:
    """A network in evaluation mode whose batch norms have seen images and learnt scales and shifts."""
    torch.manual_seed(0)
    encoder = Encoder(arch, "cls" if arch in VITS else "gem", 64, 32)
    for layer in encoder.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
            nn.init.uniform_(layer.weight, 0.7, 1.3)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
    with torch.no_grad():
        encoder.train()(torch.randn(8, 3, 64, 32))
    return encoder.eval()


@pytest.mark.parametrize("arch", ARCHS)
def test_the_same_features_with_fewer_layers(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in SMALL_VITS.items():
        monkeypatch.setitem(VITS, name, size)
    encoder = after_some_training(arch).double()  # deep networks blow the rounding of float32 up to 1e-4
    folded = fold_batch_norms(encoder)
    images = torch.randn(4, 3, 64, 32, dtype=torch.float64)
    with torch.inference_mode():
        expected, found = encoder(images), folded(images)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert (expected[1:] - expected[:-1]).abs().max() > 1e-2  # features that would show a difference

    kept = {layer.BN for layer in folded.modules() if isinstance(layer, InstanceBatchNorm)}
    left = {layer for layer in folded.modules() if isinstance(layer, nn.BatchNorm2d)}
    assert left == kept
    assert bool(kept) == ("ibn" in arch or "ics" in arch)


def test_the_network_itself_stays_as_it_is() -> None:
    encoder = after_some_training("resnet18")
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    folded = fold_batch_norms(encoder)
    with torch.no_grad():
        for parameter in folded.parameters():
            parameter.zero_()
    after = encoder.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert folded.backbone.get_submodule("conv1").weight.is_contiguous(memory_format=torch.channels_last)


def test_batch_norms_that_follow_no_convolution_are_left_alone() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)).eval()
    assert fold_batch_norms(layers) is layers


def test_nothing_is_copied_twice() -> None:
    folded = fold_batch_norms(after_some_training("resnet_ibn50a"))
    assert fold_batch_norms(folded) is folded
