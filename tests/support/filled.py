"""The made-up weights with which golden numbers were computed: a function of each tensor's name."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch


def fill(name: str, shape: Sequence[int]) -> torch.Tensor:
    """The tensor called ``name``."""
    a = np.arange(np.prod(shape), dtype=np.float64)
    s = np.sin(0.37 * a + (zlib.crc32(name.encode()) % 1000) / 100)
    if name.endswith("running_var"):
        values = 1 + 0.2 * s**2
    elif name.endswith("running_mean"):
        values = 0.05 * s
    elif len(shape) == 4:
        values = s * np.sqrt(2 / np.prod(shape[1:]))
    elif len(shape) == 2:
        values = s * np.sqrt(1 / shape[1])
    elif name.endswith("weight"):
        values = 1 + 0.1 * s
    else:
        values = 0.1 * s
    return torch.from_numpy(values.astype(np.float32)).reshape(tuple(shape))
