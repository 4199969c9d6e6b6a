from __future__ import annotations

import pytest
import torch
from torch import nn

from calr_cli.training.optim import build_optimiser, scheduled_lr

OPTIONS = {"lr": 3.5e-4, "weight_decay": 5e-4}


def test_learning_rate_falls_tenfold_every_twenty_epochs() -> None:
    rates = [scheduled_lr(epoch, lr=3.5e-4, step_size=20, gamma=0.1) for epoch in range(50)]
    assert rates == pytest.approx([3.5e-4] * 20 + [3.5e-5] * 20 + [3.5e-6] * 10)


def test_first_step_is_adam_s_with_weight_decay_in_the_gradient() -> None:
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(2.0)
    optimiser = build_optimiser(layer.parameters(), **OPTIONS)
    layer.weight.grad = torch.zeros(1, 1)
    optimiser.step()
    # The gradient is the penalty alone; Adam's first step is the rate itself, whatever the gradient.
    assert layer.weight.item() == pytest.approx(2.0 - 3.5e-4, abs=1e-6)


def test_frozen_parameters_are_left_out() -> None:
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    optimiser = build_optimiser(layer.parameters(), **OPTIONS)
    assert [p is layer.weight for p in optimiser.param_groups[0]["params"]] == [True]
