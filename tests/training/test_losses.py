from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from calr_cli.training.losses import camera_loss, weighted_cross_entropy


def made_up(batch: int = 8, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, classes, dtype=torch.float64, generator=generator)
    return logits, torch.randint(classes, (batch,), generator=generator)


def test_weighted_mean_by_hand() -> None:
    # Losses ln 2 and ln 4 with weights 3 and 1.
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]])
    loss = weighted_cross_entropy(logits, torch.tensor([1, 0]), torch.tensor([1.0, 3.0]))
    assert loss.item() == pytest.approx((3 * math.log(2) + math.log(4)) / 4)


def test_equals_torch_with_weights_of_any_kind() -> None:
    logits, labels = made_up()
    weights = torch.tensor([0.0, 0.5, 1.0, 2.0, 0.1], dtype=torch.float64)
    expected = cross_entropy(logits, labels, weights).item()
    for given in (weights, weights.numpy(), weights.tolist(), weights.numpy().astype(np.float32)):
        assert weighted_cross_entropy(logits, labels, given).item() == pytest.approx(expected, rel=1e-6)


def test_weights_that_sum_to_0_in_the_batch_take_the_plain_mean() -> None:
    logits, _ = made_up()
    labels = torch.zeros(8, dtype=torch.int64)
    logits.requires_grad_()
    loss = weighted_cross_entropy(logits, labels, torch.tensor([0.0, 1, 1, 1, 1]))
    plain = cross_entropy(logits, labels)
    assert loss.item() == plain.item()
    assert torch.equal(*torch.autograd.grad(loss, logits), *torch.autograd.grad(plain, logits))
    assert weighted_cross_entropy(logits, labels).item() == plain.item()


def test_camera_loss_is_ordinary_cross_entropy() -> None:
    logits, camids = made_up()
    assert camera_loss(logits, camids).item() == cross_entropy(logits, camids).item()


@pytest.mark.parametrize("cameras", [2, 6, 15])
def test_the_reference_s_gradient_at_uniform_is_one_cth_of_the_ordinary_one(cameras: int) -> None:
    logits = torch.full((4, cameras), 0.7, dtype=torch.float64, requires_grad=True)
    camids = torch.tensor([0, 1, 1, cameras - 1])
    (ordinary,) = torch.autograd.grad(camera_loss(logits, camids), logits)
    (reference,) = torch.autograd.grad(camera_loss(logits, camids, "reference"), logits)
    torch.testing.assert_close(reference, ordinary / cameras, rtol=1e-12, atol=1e-15)
    assert ordinary.abs().max() > 0.1


def test_the_reference_s_loss_by_hand() -> None:
    # Probabilities (3/4, 1/4) taken for logits once more.
    logits = torch.tensor([[math.log(3), 0.0]])
    expected = math.log(math.exp(0.75) + math.exp(0.25)) - 0.75
    assert camera_loss(logits, torch.tensor([0]), "reference").item() == pytest.approx(expected)
