"""Every random draw follows from the seed and from what it is for, not from what ran before."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def keyed_rng(seed: int, *key: str | int) -> np.random.Generator:
    """A generator for one purpose, named by ``key``: for instance ``("inter", epoch, "batches")``."""
    return np.random.default_rng([seed, *(_number(part) for part in key)])


def seed_torch(seed: int, *key: str | int) -> None:
    """Seed torch's own generators (initial weights, dropout) for one purpose, named by ``key``."""
    torch.manual_seed(int(keyed_rng(seed, *key).integers(2**63 - 1)))


def _number(part: str | int) -> int:
    return part if isinstance(part, int) else zlib.crc32(part.encode())
