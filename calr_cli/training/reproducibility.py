"""Every random draw follows from the seed and from what it is for, not from what ran before."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def keyed_rng(seed: int, *key: str | int) -> np.random.Generator:
    """A generator for one purpose, named by ``key``: for instance ``("inter", epoch, "batches")``."""
    # Hashed, because NumPy takes a list of numbers and the same list with a 0 appended for one seed.
    name = "/".join(str(part) for part in (seed, *key))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest(), "big"))


def seed_torch(seed: int, *key: str | int) -> None:
    """Seed torch's own generators (initial weights, dropout) for one purpose, named by ``key``."""
    torch.manual_seed(int(keyed_rng(seed, *key).integers(2**63 - 1)))
