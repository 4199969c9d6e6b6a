from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calr_cli.training import ClusterMemory
from calr_cli.training.memory import UpdateMode
from tests.support import memory_oracle
from tests.support.features import unit_features


@pytest.mark.parametrize(("mode", "key"), [("all", "avg"), ("hard", "hard")])
def test_golden_over_three_chained_steps(golden: dict[str, np.ndarray], mode: UpdateMode, key: str) -> None:
    memory = ClusterMemory(golden["mem_init"], temperature=0.05, momentum=0.1)
    for step in range(3):
        inputs, targets, loss, gradient, after = (
            golden[f"mem_{key}_{name}{step}"] for name in ("x", "y", "loss", "grad", "memory")
        )
        assert np.abs(np.linalg.norm(inputs, axis=1) - 1).min() > 1e-3  # not unit length
        features, labels = torch.from_numpy(inputs).requires_grad_(), torch.from_numpy(targets)
        found = memory.loss(features, labels, golden["mem_weights"])
        found.backward()
        memory.update(features, labels, mode)
        assert found.item() == pytest.approx(float(loss), abs=1e-5)
        np.testing.assert_allclose(features.grad, gradient, atol=1e-5)
        np.testing.assert_allclose(memory.centroids, after, atol=1e-5)


def random_batch(
    seed: int, clusters: int, batch: int, levels: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A memory, features and labels in float64; few ``levels`` make exactly equal features."""
    rng = np.random.default_rng(seed)
    memory = unit_features(seed, clusters, 5).astype(np.float64)
    memory /= np.linalg.norm(memory, axis=1, keepdims=True)
    features = rng.normal(size=(batch, 5)) * 3
    if levels is not None:
        features = features[rng.integers(0, min(levels, batch), batch)]
    return memory, features, rng.integers(0, clusters, batch)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    clusters=st.integers(1, 6),
    batch=st.integers(1, 24),
    levels=st.sampled_from([None, 2]),
    mode=st.sampled_from(["all", "hard"]),
    momentum=st.sampled_from([0.0, 0.1, 0.9, 1.0]),
)
def test_update_equals_going_image_by_image(
    seed: int, clusters: int, batch: int, levels: int | None, mode: UpdateMode, momentum: float
) -> None:
    centroids, features, labels = random_batch(seed, clusters, batch, levels)
    memory = ClusterMemory(centroids, momentum=momentum)
    memory.update(torch.from_numpy(features), torch.from_numpy(labels), mode)
    expected = memory_oracle.memory_update(centroids, features, labels.tolist(), momentum, mode)
    np.testing.assert_allclose(memory.centroids, expected, atol=1e-12)


def test_hard_takes_the_first_of_equally_dissimilar_images() -> None:
    # Both images are at right angles to the row, so equally far; they would leave different rows.
    memory = ClusterMemory(torch.eye(3)[:1], momentum=0.5)
    memory.update(torch.eye(3)[[1, 2]], torch.tensor([0, 0]), "hard")
    np.testing.assert_allclose(memory.centroids, [[0.5**0.5, 0.5**0.5, 0]], atol=1e-6)


def test_hard_compares_with_the_row_before_the_batch() -> None:
    memory = ClusterMemory(torch.tensor([[1.0, 0.0]]), momentum=0.0)
    batch = torch.tensor([[0.0, 1.0], [0.6, 0.8]])  # after the first image the second would be the farther
    memory.update(batch, torch.tensor([0, 0]), "hard")
    np.testing.assert_allclose(memory.centroids, [[0, 1]], atol=1e-6)


def test_momentum_is_the_share_of_the_old_row_and_order_counts() -> None:
    memory = ClusterMemory(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), momentum=0.1)
    memory.update(torch.tensor([[0.0, 2.0], [3.0, 0.0]]), torch.tensor([0, 0]))
    first = memory_oracle.unit(np.array([0.1, 0.9]))
    second = memory_oracle.unit(0.1 * first + np.array([0.9, 0]))
    np.testing.assert_allclose(memory.centroids, [second, [0, 1]], atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), clusters=st.integers(1, 6), batch=st.integers(1, 12), zero=st.booleans())
def test_loss_equals_the_oracle(seed: int, clusters: int, batch: int, zero: bool) -> None:
    centroids, features, labels = random_batch(seed, clusters, batch)
    weights = np.zeros(clusters) if zero else np.random.default_rng(seed).integers(0, 3, clusters) / 2
    found = ClusterMemory(centroids, 0.05).loss(torch.from_numpy(features), torch.from_numpy(labels), weights)
    expected = memory_oracle.memory_loss(centroids, features, labels.tolist(), 0.05, weights.tolist())
    assert found.item() == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), clusters=st.integers(1, 8), batch=st.integers(1, 12))
def test_groups_are_memories_of_their_own(seed: int, clusters: int, batch: int) -> None:
    """Each image against the rows of its group alone, as if there were no others."""
    centroids, features, labels = random_batch(seed, clusters, batch)
    groups = np.random.default_rng(seed).integers(0, 3, clusters) * 2
    memory = ClusterMemory(centroids, 0.05, groups=groups)
    found = memory.losses(torch.from_numpy(features), torch.from_numpy(labels))
    for row, label, loss in zip(features, labels, found.tolist(), strict=True):
        of_group = np.flatnonzero(groups == groups[label])
        own = int(np.flatnonzero(of_group == label)[0])
        expected = memory_oracle.memory_loss(
            centroids[of_group], row[None], [own], 0.05, [1.0] * len(of_group)
        )
        assert loss == pytest.approx(expected, abs=1e-9)


def test_gradient_with_groups() -> None:
    """Finite everywhere, also for an image whose group has one row: there is nothing to tell it from."""
    centroids, features, labels = random_batch(3, 4, 6)
    memory = ClusterMemory(centroids, temperature=0.5, groups=np.array([0, 0, 7, 0]))
    labels[0] = 2
    inputs, targets = torch.from_numpy(features).requires_grad_(), torch.from_numpy(labels)
    assert torch.autograd.gradcheck(lambda batch: memory.losses(batch, targets), (inputs,))
    (gradient,) = torch.autograd.grad(memory.losses(inputs, targets).sum(), inputs)
    assert (gradient[labels == 2] == 0).all()
    assert (gradient[labels != 2] != 0).any()


@pytest.mark.parametrize("weights", [None, [0.0, 0.5, 2.0], [0.0, 0.0, 0.0]])
def test_gradient_of_the_loss(weights: list[float] | None) -> None:
    centroids, features, labels = random_batch(1, 3, 6)
    memory = ClusterMemory(centroids, temperature=0.5)
    inputs = torch.from_numpy(features).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda batch: memory.loss(batch, torch.from_numpy(labels), weights), (inputs,)
    )


def test_neither_loss_nor_update_touches_what_was_passed_in() -> None:
    centroids = torch.eye(3)
    memory = ClusterMemory(centroids)
    features = torch.ones(2, 3, requires_grad=True)
    memory.loss(features, torch.tensor([0, 1]))
    memory.update(features, torch.tensor([0, 1]))
    assert torch.equal(centroids, torch.eye(3))
    assert torch.equal(features, torch.ones(2, 3))
    assert not memory.centroids.requires_grad
    assert torch.equal(memory.centroids[2], torch.eye(3)[2])  # a cluster without images stays


def test_an_empty_batch_moves_nothing() -> None:
    for mode in ("all", "hard"):
        memory = ClusterMemory(torch.eye(3))
        memory.update(torch.empty(0, 3), torch.empty(0, dtype=torch.int64), mode)
        assert torch.equal(memory.centroids, torch.eye(3))


def test_takes_arrays() -> None:
    centroids, features, labels = random_batch(2, 3, 8)
    by_array, by_tensor = ClusterMemory(centroids), ClusterMemory(torch.from_numpy(centroids))
    tensors = torch.from_numpy(features), torch.from_numpy(labels)
    assert by_array.loss(features, labels).item() == by_tensor.loss(*tensors).item()
    by_array.update(features, labels)
    by_tensor.update(*tensors)
    assert torch.equal(by_array.centroids, by_tensor.centroids)
