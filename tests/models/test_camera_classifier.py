from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from calr_cli.models.camera_classifier import HIDDEN_DIM, CameraClassifier, draw_kept_units


def test_layers_are_those_of_the_method() -> None:
    head = CameraClassifier(2048, 6)
    layers = [*head.hidden, *head.output]
    sizes = [(layer.in_features, layer.out_features) for layer in layers if isinstance(layer, nn.Linear)]
    kinds = [type(layer).__name__ for layer in layers]
    assert sizes == [(2048, 100), (100, 100), (100, 6)]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]


def test_dropout_of_given_units_lies_between_the_hidden_layers() -> None:
    head, features = CameraClassifier(8, 3).eval(), torch.randn(4, 8)
    kept = torch.from_numpy(draw_kept_units(4, np.random.default_rng(0)))
    hidden = torch.where(kept, 2 * head.hidden(features), 0)  # those that stay make up for the others
    torch.testing.assert_close(head(features, kept), head.output(hidden))
    torch.testing.assert_close(head(features), head.output(head.hidden(features)))


def test_half_of_the_units_are_kept() -> None:
    kept = draw_kept_units(1000, np.random.default_rng(0))
    assert kept.shape == (1000, HIDDEN_DIM)
    assert kept.mean() == pytest.approx(0.5, abs=0.01)
    assert kept.mean(axis=0).std() < 0.03  # each unit and each image by itself
    assert kept.mean(axis=1).std() < 0.08


def test_one_logit_per_camera() -> None:
    assert CameraClassifier(32, 5)(torch.randn(7, 32)).shape == (7, 5)


@pytest.mark.parametrize("alpha", [1.0, 0.25])
def test_features_get_minus_alpha_times_the_gradient_and_the_head_gets_it_straight(alpha: float) -> None:
    head = CameraClassifier(8, 3, alpha).double().eval()
    features = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    camids = torch.tensor([0, 1, 2, 0, 1])
    inputs = (features, head.hidden[0].weight)
    straight = torch.autograd.grad(
        functional.cross_entropy(head.output(head.hidden(features)), camids), inputs
    )
    behind_reversal = torch.autograd.grad(functional.cross_entropy(head(features), camids), inputs)
    assert torch.equal(behind_reversal[0], -alpha * straight[0])
    assert torch.equal(behind_reversal[1], straight[1])


def test_head_learns_while_the_features_unlearn() -> None:
    """Descent on one loss: the head gets better at fixed features; moved features fool a fixed head."""
    generator = torch.Generator().manual_seed(0)
    camids = torch.arange(2).repeat(32)
    features = torch.randn(64, 8, generator=generator) + 2 * camids[:, None]
    head = CameraClassifier(8, 2).eval()
    before = functional.cross_entropy(head(features), camids)
    before.backward()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter -= 0.05 * parameter.grad
        learnt = functional.cross_entropy(head(features), camids)
    assert learnt < before

    moved = features.clone().requires_grad_()
    functional.cross_entropy(head(moved), camids).backward()
    with torch.no_grad():
        assert functional.cross_entropy(head(moved - 5 * moved.grad), camids) > learnt
