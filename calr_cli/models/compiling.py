"""Has torch compile a backbone: what lies between its convolutions then takes fewer passes over memory."""

from __future__ import annotations

import warnings
from functools import cache

import torch

from calr_cli.errors import ConfigError
from calr_cli.models.encoder import Encoder


def compile_backbone(encoder: Encoder, backend: str = "inductor") -> None:
    """Have ``encoder.backbone`` compiled when it is first used, once for each size of batch.

    Its weights, their names and their files stay as they are. Copies of the encoder are not compiled: neither
    the running average nor the network that extracts features, which lives for one extraction only.

    Args:
        encoder: On its device.
        backend: See `torch.compile`; ``aot_eager`` needs no compiler and computes with the usual kernels.

    Raises:
        ConfigError: torch has no working compiler for the device.
    """
    _require_compiler(encoder.device.type, backend)
    encoder.backbone.compile(dynamic=False, backend=backend)


@cache
def _require_compiler(device: str, backend: str) -> None:
    """Compile something small: what torch needs differs between its versions, devices and systems."""
    try:
        # Code that an earlier run compiled would prove nothing; torch warns that it is not used.
        with warnings.catch_warnings(action="ignore"), torch.compiler.config.patch(force_disable_caches=True):  # type: ignore[attr-defined]
            torch.compile(torch.sin, backend=backend)(torch.zeros(2, device=device))
    except Exception as error:  # of torch, Triton, the compiler or the system
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ConfigError(
            f"compile: torch cannot compile for {device} here ({reason})",
            "Give --set compile=false, or install a C++ compiler (on a GPU also Triton)",
        ) from error
