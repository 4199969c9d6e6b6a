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
