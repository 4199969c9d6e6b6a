from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Adam

from calr_cli.models.encoder import Encoder
from calr_cli.models.vit import VITS
from calr_cli.training.optim import build_optimiser, scheduled_lr, set_rates
from tests.support.small_vits import SMALL_VITS

OPTIONS: dict[str, Any] = {"lr": 3.5e-4, "weight_decay": 5e-4}


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


def test_warm_up_rises_in_equal_steps() -> None:
    rates = [scheduled_lr(epoch, lr=4.0, step_size=3, gamma=0.1, warmup_epochs=4) for epoch in range(6)]
    assert rates == pytest.approx([1.0, 2.0, 3.0, 0.4, 0.4, 0.4])


def one_weight(**options: Any) -> list[float]:
    """A weight of 2 after each of two steps, with gradients 1 and 0."""
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(2.0)
    optimiser = build_optimiser(layer.parameters(), lr=0.1, **options)
    values = []
    for gradient in (1.0, 0.0):
        layer.weight.grad = torch.full((1, 1), gradient)
        optimiser.step()
        values.append(layer.weight.item())
    return values


def test_sgd_has_momentum_and_weight_decay_in_the_gradient() -> None:
    first = 2 - 0.1 * (1 + 0.5 * 2)
    second = first - 0.1 * (0.9 * 2 + 0.5 * first)
    assert one_weight(name="sgd", weight_decay=0.5) == pytest.approx([first, second])
    assert one_weight(name="sgd", weight_decay=0.0, momentum=0.0) == pytest.approx([1.9, 1.9])


def test_adamw_shrinks_the_weights_themselves() -> None:
    assert one_weight(name="adamw", weight_decay=0.5)[0] == pytest.approx(2 * (1 - 0.1 * 0.5) - 0.1)


def test_norms_biases_tokens_and_positions_are_spared_from_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VITS, "vit_small_ics", SMALL_VITS["vit_small_ics"])
    encoder = Encoder("vit_small_ics", "cls", 32, 32)
    optimiser = build_optimiser(encoder.parameters(), decayed="matrices", **OPTIONS)
    spared = {id(parameter) for parameter in optimiser.param_groups[1]["params"]}
    names = {name for name, value in encoder.named_parameters() if value.requires_grad}
    found = {name for name, value in encoder.named_parameters() if id(value) in spared}
    assert found == {
        name
        for name in names
        if name.endswith("bias")
        or "norm" in name
        or "token" in name
        or "pos_" in name
        or ".IN." in name
        or ".BN." in name
        or name in ("neck.weight", "backbone.patch_embed.conv.7.weight")
    }
    set_rates(optimiser, lr=0.5, weight_decay=0.25)
    groups = optimiser.param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.5, 0.25), (0.5, 0.0)]
    again = build_optimiser(encoder.parameters(), decayed="matrices", **OPTIONS)
    again.load_state_dict(optimiser.state_dict())
    set_rates(again, lr=0.5, weight_decay=0.25)
    assert again.param_groups[1]["weight_decay"] == 0


def test_adam_with_one_group_is_the_default() -> None:
    """The published method: nothing about it may change."""
    optimiser = build_optimiser(Encoder("resnet18").parameters(), **OPTIONS)
    assert type(optimiser) is Adam
    assert len(optimiser.param_groups) == 1
