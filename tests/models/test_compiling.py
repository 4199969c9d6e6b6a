"""A compiled backbone computes what the network itself does, and nothing else notices it."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from calr_cli.errors import ConfigError
from calr_cli.models import compiling
from calr_cli.models.batch_norm import fixed_running_statistics
from calr_cli.models.compiling import compile_backbone
from calr_cli.models.encoder import Encoder


@pytest.fixture(autouse=True)
def forget_what_was_compiled() -> Iterator[None]:
    torch.compiler.reset()
    compiling._require_compiler.cache_clear()
    yield
    torch.compiler.reset()


def trained(encoder: Encoder, *sizes: int) -> list[Tensor]:
    """Features, gradients and statistics after groups of these sizes; statistics follow the first."""
    draw, features = torch.Generator().manual_seed(0), []
    encoder.train()
    for position, size in enumerate(sizes):
        images = torch.randn(size, 3, 32, 16, generator=draw)
        if position == 0:
            features.append(encoder(images))
        else:
            with fixed_running_statistics(encoder):
                features.append(encoder(images))
        (features[-1] * torch.randn(features[-1].shape, generator=draw)).sum().backward()
    gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
    return [*(f.detach() for f in features), *gradients, *encoder.buffers()]


def assert_equal_up_to(tolerance: float, found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2"])
def test_compiled_equals_eager_and_sizes_are_compiled_once_each(arch: str) -> None:
    torch.manual_seed(0)
    encoder = Encoder(arch)
    compiled = copy.deepcopy(encoder)
    compile_backbone(compiled, "aot_eager")
    assert_equal_up_to(1e-4, trained(compiled, 8, 8, 5), trained(encoder, 8, 8, 5))


@pytest.mark.e2e
def test_torch_s_own_compiler_computes_the_same_to_rounding() -> None:
    torch.manual_seed(0)
    encoder = Encoder("resnet18")
    compiled = copy.deepcopy(encoder)
    compile_backbone(compiled)
    assert_equal_up_to(1e-3, trained(compiled, 8), trained(encoder, 8))


def test_weights_keep_their_names_and_copies_are_not_compiled() -> None:
    encoder = Encoder("resnet18")
    names = list(encoder.state_dict())
    compile_backbone(encoder, "aot_eager")
    assert list(encoder.state_dict()) == names
    assert encoder.backbone._compiled_call_impl is not None
    assert copy.deepcopy(encoder).backbone._compiled_call_impl is None


def test_a_missing_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(ConfigError) as caught:
        compile_backbone(Encoder("resnet18"))
    assert str(caught.value).startswith("compile: torch cannot compile for cpu here (")
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
def test_compiled_equals_eager_on_a_gpu() -> None:
    torch.manual_seed(0)
    encoder = Encoder("resnet18").cuda()
    compiled = copy.deepcopy(encoder)
    compile_backbone(compiled)
    images = torch.randn(8, 3, 64, 32, device="cuda")
    torch.testing.assert_close(compiled.train()(images), encoder.train()(images), atol=1e-2, rtol=1e-2)
