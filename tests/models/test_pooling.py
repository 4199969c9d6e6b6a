from __future__ import annotations

import numpy as np
import pytest
import torch

from calr_cli.errors import ConfigError
from calr_cli.models.pooling import GeneralisedMeanPooling, build_pooling


def test_gem_equals_the_released_function(golden: dict[str, np.ndarray]) -> None:
    with torch.no_grad():
        pooled = build_pooling("gem")(torch.from_numpy(golden["gem_in"]))
    np.testing.assert_allclose(pooled.numpy(), golden["gem_out"], rtol=0, atol=1e-5)


def test_gem_by_hand() -> None:
    """p = 3: the cube root of (1 + 8 + 27 + 0) / 4."""
    feature_map = torch.tensor([[[[1.0, 2.0], [3.0, -5.0]]]])
    assert build_pooling("gem")(feature_map).item() == pytest.approx(9 ** (1 / 3), abs=1e-5)


def test_gem_gradient_reaches_activations_and_p() -> None:
    pooling = GeneralisedMeanPooling().double()
    feature_map = torch.rand(2, 3, 2, 2, dtype=torch.float64) + 0.1

    def pooled(x: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(pooling, {"p": p}, (x,))

    p = torch.full((1,), 2.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pooled, (feature_map.requires_grad_(), p))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gem_gradients_are_those_of_the_formula(layout: torch.memory_format) -> None:
    """Also of activations that count as eps, and of a channel that has no others."""
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(3, 4, 5, 2, generator=draw, dtype=torch.float64)
    values[1, 2] = -1
    above = torch.randn(3, 4, generator=draw, dtype=torch.float64)
    pooling = GeneralisedMeanPooling(2.5).double()
    found = []
    for formula in (pooling, lambda x: x.clamp(min=1e-6).pow(pooling.p).mean(dim=(2, 3)).pow(1 / pooling.p)):
        feature_map = values.clone(memory_format=layout).requires_grad_()
        pooled = formula(feature_map)
        found.append((pooled.detach(), *torch.autograd.grad(pooled, (feature_map, pooling.p), above)))
    for ours, autograds in zip(*found, strict=True):
        torch.testing.assert_close(ours, autograds, rtol=1e-12, atol=1e-15)
    assert (found[0][1][1, 2] == 0).all()


def test_gem_of_a_dead_channel_has_finite_gradients() -> None:
    """After a ReLU a whole channel may be 0, where a root has no slope."""
    pooling = build_pooling("gem")
    feature_map = torch.zeros(1, 1, 2, 2, requires_grad=True)
    pooling(feature_map).sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in (feature_map, *pooling.parameters()))


def test_gem_has_one_trainable_parameter_from_three() -> None:
    assert {name: p.tolist() for name, p in build_pooling("gem").named_parameters()} == {"p": [3.0]}


def test_average_by_hand_has_no_parameters() -> None:
    pooling = build_pooling("avg")
    pooled = pooling(torch.tensor([[[[1.0, 2.0], [3.0, -2.0]], [[0.0, 0.0], [0.0, 4.0]]]]))
    assert pooled.tolist() == [[1.0, 1.0]]
    assert not list(pooling.parameters())


def test_unknown_pooling() -> None:
    with pytest.raises(ConfigError, match=r"^unknown pooling 'max'\. Known: gem, avg$"):
        build_pooling("max")
