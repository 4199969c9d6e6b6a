"""How many operations a step takes: on a GPU each is a launch, and one large launch is cheaper than many."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch

from calr_cli.data.augment import Augmentation
from calr_cli.models.encoder import Encoder
from calr_cli.training import ClusterMemory
from calr_cli.training.cluster_contrast import MemoryTerm
from calr_cli.training.networks import Networks
from calr_cli.training.objective import Objective
from calr_cli.training.reproducibility import keyed_rng
from calr_cli.training.step import Batching, TrainingStep
from tests.support.features import unit_features
from tests.support.operations import CountedOperations

LABELS = np.arange(12) % 3


def counted_step(
    precision: torch.dtype, groups: int, by_autograd: bool = False
) -> tuple[Counter[str], Encoder]:
    torch.manual_seed(0)
    encoder = Encoder("resnet18")
    encoder.precision = precision
    terms = [MemoryTerm(ClusterMemory(unit_features(0, 3, 512)), LABELS, "all")]
    networks = Networks(encoder, torch.optim.SGD(encoder.parameters(), 0.1))
    batching = Batching(Augmentation(), partial(keyed_rng, 0), 12 // groups)
    step = TrainingStep(networks, Objective(terms, LABELS, LABELS), 12, batching)
    if by_autograd:
        step.trained = []
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (12, 32, 16, 3), dtype=torch.uint8, generator=draw)
    with CountedOperations() as operations:
        step(0, np.arange(12), pixels)
    return operations.counts, encoder


def test_weights_become_bf16_once_a_step_not_once_a_group() -> None:
    """fp32 gradients and activations are cast in each group; every weight only in the first."""
    one, three = (counted_step(torch.bfloat16, groups)[0]["_to_copy"] for groups in (1, 3))
    convolutions = sum(isinstance(m, torch.nn.Conv2d) for m in Encoder("resnet18").modules())
    without = 3 * one  # if every group cast everything again
    assert three <= without - 2 * convolutions


def test_gradients_of_groups_are_added_without_an_operation_for_each_tensor() -> None:
    one, three = (counted_step(torch.float32, groups)[0] for groups in (1, 3))
    tensors = sum(p.requires_grad for p in Encoder("resnet18").parameters())
    assert (one["_foreach_add_"], three["_foreach_add_"]) == (0, 2)
    # What else is added belongs to a group, as do the other operations.
    assert three["add_"] + three["add"] < 3 * (one["add_"] + one["add"]) + tensors


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_a_step_of_groups_has_the_bits_of_gradients_that_autograd_adds(precision: torch.dtype) -> None:
    ours, autograd = (
        counted_step(precision, 3, by_autograd)[1].state_dict() for by_autograd in (False, True)
    )
    assert all(torch.equal(ours[name], autograd[name]) for name in ours)
