from __future__ import annotations

import pytest
import torch

from calr_cli.errors import ConfigError
from calr_cli.models.encoder import Encoder


@pytest.mark.parametrize("pooling", ["gem", "avg"])
@pytest.mark.parametrize("training", [True, False])
def test_features_are_unit_rows_in_training_and_in_testing(pooling: str, training: bool) -> None:
    encoder = Encoder("resnet18", pooling).train(training)
    features = encoder(torch.randn(4, 3, 64, 32))
    assert features.shape == (4, encoder.feature_dim) == (4, 512)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(4))
    assert (encoder.arch, encoder.pooling_name) == ("resnet18", pooling)


def test_neck_shift_is_frozen_at_zero_and_its_scale_starts_at_one() -> None:
    encoder = Encoder("resnet18")
    encoder(torch.randn(4, 3, 64, 32)).sum().backward()
    frozen = [name for name, parameter in encoder.named_parameters() if not parameter.requires_grad]
    assert frozen == ["neck.bias"]
    assert encoder.neck.bias.grad is None
    assert not encoder.neck.bias.any()
    assert torch.equal(encoder.neck.weight, torch.ones(512))


def test_every_other_parameter_receives_a_gradient() -> None:
    """A detached part would stay at its initial weights without anyone noticing."""
    encoder = Encoder("resnet18")
    (encoder(torch.randn(4, 3, 64, 32)) * torch.randn(4, 512)).sum().backward()
    without = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == ["neck.bias"]


def test_before_training_the_neck_changes_no_direction_in_testing() -> None:
    encoder = Encoder("resnet18").eval()
    images = torch.randn(2, 3, 64, 32)
    pooled = encoder.pooling(encoder.backbone(images))
    torch.testing.assert_close(encoder(images), pooled / pooled.norm(dim=1, keepdim=True))


def test_state_dict_groups_are_backbone_pooling_and_neck() -> None:
    """Checkpoints are read by these names."""
    keys = set(Encoder("resnet18").state_dict())
    assert {key.split(".")[0] for key in keys} == {"backbone", "pooling", "neck"}
    assert {"backbone.conv1.weight", "pooling.p", "neck.running_mean"} <= keys


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'resnet18'"):
        Encoder("resnet-18")
    with pytest.raises(ConfigError, match="unknown pooling 'mean'"):
        Encoder("resnet18", "mean")
