"""How much memory and time a step will take, told before it begins."""

from __future__ import annotations

from functools import cache
from time import perf_counter

import torch

from calr_cli.allocation import available_memory, gigabytes
from calr_cli.config.schema import Settings
from calr_cli.distances.knn import BLOCK_BYTES
from calr_cli.events import Reporter

_LONG_SECONDS = 5
_LARGE_BYTES = 10**9


def memory_limit(settings: Settings) -> int:
    """Bytes that one step may take: what the settings allow, else what the machine has free now."""
    if settings.memory_limit_gb is not None:
        return int(settings.memory_limit_gb * 1e9)
    return available_memory()


def block_bytes(limit: int) -> int:
    """Scratch memory of one block of products within a limit."""
    return min(BLOCK_BYTES, max(limit // 8, 2**20))


def tell_estimate(
    what: str, operations: float, size: float, device: torch.device, reporter: Reporter
) -> None:
    """One line before a long or large step; nothing before others.

    Args:
        what: The step.
        operations: Multiplications and additions of its matrix products.
        size: Bytes it takes on top of its inputs.
        device: Where it works.
        reporter: Told.
    """
    seconds = operations / _operations_per_second(device) if operations > 1e10 else 0
    if seconds >= _LONG_SECONDS or size >= _LARGE_BYTES:
        duration = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
        reporter.note(f"{what}: about {duration}, {gigabytes(size)}")


@cache
def _operations_per_second(device: torch.device) -> float:
    """Of a float32 matrix product, measured on one of the size of a block."""
    left, right = torch.ones(512, 1024, device=device), torch.ones(1024, 4096, device=device)
    best = float("inf")
    for _ in range(3):
        began = perf_counter()
        float((left @ right)[0, 0])  # waits for the device
        best = min(best, perf_counter() - began)
    return 2 * 512 * 1024 * 4096 / best
