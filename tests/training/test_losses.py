from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from calr_cli.training.losses import camera_loss, image_shares


def made_up(batch: int = 8, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, classes, dtype=torch.float64, generator=generator)
    return logits, torch.randint(classes, (batch,), generator=generator)


def test_shares_by_hand() -> None:
    shares = image_shares(np.array([1, 0, 1]), np.array([1.0, 3.0]))
    assert shares == pytest.approx([3 / 7, 1 / 7, 3 / 7])
    assert image_shares(np.array([1, 0, 1])) == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_shares_give_torch_s_weighted_mean(kind: type) -> None:
    logits, labels = made_up()
    weights = np.array([0.0, 0.5, 1.0, 2.0, 0.1], kind)
    expected = cross_entropy(logits, labels, torch.from_numpy(weights).double()).item()
    losses = cross_entropy(logits, labels, reduction="none").numpy()
    assert (image_shares(labels.numpy(), weights) * losses).sum() == pytest.approx(expected, rel=1e-12)


def test_weights_that_sum_to_0_in_the_batch_weigh_all_alike() -> None:
    labels = np.zeros(8, np.int64)
    assert (
        image_shares(labels, np.array([0.0, 1, 1])).tolist() == image_shares(labels).tolist() == [1 / 8] * 8
    )


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
