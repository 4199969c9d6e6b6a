"""Which type the network computes in: what the user says, else what the machine has instructions for."""

from __future__ import annotations

import pytest
import torch

from calr_cli.errors import ConfigError
from calr_cli.training import precision
from calr_cli.training.precision import choose_precision
from tests.support.pretended_cuda import pretended_cuda

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(params=[True, False], ids=["bf16 machine", "no bf16"])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(precision, "has_bf16", lambda _: request.param)
    return bool(request.param)


@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
def test_auto_takes_bf16_where_it_is_native(device: torch.device, native: bool) -> None:
    assert choose_precision("auto", device) == (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
def test_fp32_is_fp32(device: torch.device, native: bool) -> None:
    assert choose_precision("fp32", device) == torch.float32


def test_bf16_is_obeyed_on_a_cpu_and_refused_on_a_gpu_without_it(native: bool) -> None:
    assert choose_precision("bf16", CPU) == torch.bfloat16  # slow without instructions, but computed
    if native:
        assert choose_precision("bf16", GPU) == torch.bfloat16
    else:
        with pytest.raises(ConfigError, match="precision bf16: cuda:0 cannot compute in it"):
            choose_precision("bf16", GPU)


def test_a_torch_that_cannot_say_what_the_cpu_has_counts_as_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not precision.has_bf16(CPU)


def test_a_gpu_is_asked_about_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPU 0 was asked whatever the device."""
    with pretended_cuda(2):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation: torch.cuda.current_device() == 1
        )
        assert choose_precision("auto", torch.device("cuda", 1)) == torch.bfloat16
        assert choose_precision("auto", GPU) == torch.float32
        with pytest.raises(ConfigError, match="cuda:0 cannot compute in it"):
            choose_precision("bf16", GPU)
