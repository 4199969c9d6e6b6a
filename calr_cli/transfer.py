"""Copies arrays from host memory to the device that computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


def to_device(values: npt.NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """``values`` on ``device``; a GPU copies them while it computes, and the host does not wait.

    On the CPU the tensor shares the memory of ``values``.
    """
    tensor = torch.as_tensor(values)
    if device.type != "cuda":
        return tensor.to(device)
    # Only from pinned memory does a copy run beside the work.
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)


def copied_ahead(blocks: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Each of ``blocks`` in turn, on ``device``; a GPU copies the next one while it works on the latest.

    The host waits for ``blocks``, never for the device. On the CPU the tensors are those of ``blocks``.

    Args:
        blocks: In host memory, pinned for a GPU. The next one is taken before the latest is given.
        device: Where they are used, on the stream that is current when they are given.
    """
    if device.type != "cuda":
        yield from blocks
        return
    stream = copy_stream(device)
    latest: tuple[Tensor, torch.cuda.Event] | None = None
    for block in blocks:
        with torch.cuda.stream(stream):
            # torch itself keeps pinned memory until a copy from it is done.
            following = to_device(block, device), stream.record_event()
        if latest is not None:
            yield _received(*latest)
        latest = following
    if latest is not None:
        yield _received(*latest)


@cache
def copy_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream for copies to ``device``: always the same, since torch keeps freed memory by stream."""
    return torch.cuda.Stream(device)


def _received(block: Tensor, copied: torch.cuda.Event) -> Tensor:
    user = torch.cuda.current_stream(block.device)
    user.wait_event(copied)
    # Without this, the copying stream could overwrite memory that the user still reads.
    block.record_stream(user)
    return block
