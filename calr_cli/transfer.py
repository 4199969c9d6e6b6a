"""Copies arrays from host memory to the device that computes."""

from __future__ import annotations

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
