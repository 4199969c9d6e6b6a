"""What the network computes in."""

from __future__ import annotations

from typing import Literal

import torch

from calr_cli.distributed.devices import working_on
from calr_cli.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16"]


def choose_precision(asked: Precision, device: torch.device) -> torch.dtype:
    """The type that ``asked`` means on ``device``.

    Raises:
        ConfigError: bf16 on a GPU that does not have it.
    """
    if asked == "fp32":
        return torch.float32
    native = has_bf16(device)
    if asked == "bf16" and device.type == "cuda" and not native:
        raise ConfigError(f"precision bf16: {device} cannot compute in it", "Choose precision=fp32")
    return torch.bfloat16 if native or asked == "bf16" else torch.float32


def has_bf16(device: torch.device) -> bool:
    """Whether ``device`` has instructions for bf16; where there are none, it is slower than fp32."""
    if device.type == "cuda":
        with working_on(device):  # torch asks about the current one
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(
        check()
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        if (check := getattr(torch.cpu, name, None)) is not None
    )
