from __future__ import annotations

from itertools import combinations

import numpy as np
import torch

from calr_cli.training.reproducibility import keyed_rng, seed_torch

KEYS: list[tuple[int, tuple[str | int, ...]]] = [
    (1, ("inter", 0, "batches")),
    (2, ("inter", 0, "batches")),
    (1, ("inter", 1, "batches")),
    (1, ("inter", 0, "augmentation")),
    (1, ("intra", 0, "batches")),
    (1, ("intra", 0, 0, "batches")),
    (1, ("intra",)),
    (1, ("intra", 0)),  # NumPy's own seeding takes a list and the same list with a 0 appended for one
    (1, ("intra", 0, 0)),
    (1, ("intra", 1, 0)),
    (1, ("intra", 0, 1)),
    (1, ()),
    (0, ()),
    (1 + 2**32, ("intra",)),
]


def test_every_key_has_its_own_stream() -> None:
    draws = [keyed_rng(seed, *key).random(2000) for seed, key in KEYS]
    for left, right in combinations(draws, 2):
        assert abs(np.corrcoef(left, right)[0, 1]) < 0.1


def test_a_key_names_one_stream_whatever_ran_before() -> None:
    first = keyed_rng(1, "inter", 3, "batches").random(5)
    keyed_rng(1, "inter", 2, "batches").random(100)
    np.random.default_rng(0).random(7)
    assert (keyed_rng(1, "inter", 3, "batches").random(5) == first).all()
    assert (keyed_rng(np.int64(1), "inter", np.int64(3), "batches").random(5) == first).all()


def test_torch_is_seeded_by_key() -> None:
    seed_torch(1, "inter", 0, "dropout")
    first = torch.rand(5)
    seed_torch(1, "inter", 1, "dropout")
    other = torch.rand(5)
    seed_torch(1, "inter", 0, "dropout")
    assert torch.equal(torch.rand(5), first)
    assert not torch.equal(first, other)
