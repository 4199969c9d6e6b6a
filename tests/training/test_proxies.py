from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calr_cli.training.proxies import CameraProxies, ProxyTerm, proxy_labels
from calr_cli.types import OUTLIER
from tests.support import memory_oracle
from tests.support.features import unit_features

LABELS = np.array([0, 0, OUTLIER, 1, 0, 2, 1, 2, OUTLIER])
CAMIDS = np.array([0, 3, 0, 0, 3, 3, 0, 1, 5])


def of_images(
    seed: int, labels: np.ndarray = LABELS, camids: np.ndarray = CAMIDS, negatives: int = 50
) -> ProxyTerm:
    """Proxies with made-up rows, in float64."""
    proxies = proxy_labels(labels, camids)
    rows = torch.from_numpy(unit_features(seed, int(proxies.max()) + 1).astype(np.float64))
    return CameraProxies(0.5, momentum=0.2, temperature=0.07, num_negatives=negatives)(rows, labels, camids)


def loss_of(feature: np.ndarray, own: list[np.ndarray], others: list[np.ndarray], negatives: int) -> float:
    """Of one image: as the docstring says, with plain sums."""
    unit = memory_oracle.unit(feature)
    logits = sorted((float(unit @ row) / 0.07 for row in others), reverse=True)[:negatives]
    rest = sum(math.exp(logit) for logit in logits)
    positive = [math.exp(float(unit @ row) / 0.07) for row in own]
    return sum(-math.log(value / (value + rest)) for value in positive) / len(positive)


def test_one_number_for_each_cluster_in_each_camera() -> None:
    assert proxy_labels(LABELS, CAMIDS).tolist() == [0, 1, OUTLIER, 2, 1, 4, 2, 3, OUTLIER]
    assert proxy_labels(np.full(3, OUTLIER), np.arange(3)).tolist() == [OUTLIER] * 3
    assert proxy_labels(np.array([0, 1, 0]), np.zeros(3, np.int64)).tolist() == [0, 1, 0]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    clusters=st.integers(1, 5),
    cameras=st.integers(1, 3),
    negatives=st.integers(1, 20),
)
def test_loss_equals_the_oracle(seed: int, clusters: int, cameras: int, negatives: int) -> None:
    """Also with fewer rows of other clusters than are asked for, and with none at all."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(clusters), rng.integers(-1, clusters, 12)])
    camids = rng.integers(0, cameras, len(labels))
    proxies = of_images(seed, labels, camids, negatives)
    of_row = {int(p): int(c) for p, c in zip(proxy_labels(labels, camids), labels, strict=True)}
    batch = rng.permutation(np.flatnonzero(labels != OUTLIER))[:8]
    features = rng.normal(size=(len(batch), 6)) * 3
    found = proxies.losses(torch.from_numpy(features), batch)
    rows = proxies.rows.numpy()
    for feature, label, loss in zip(features, labels[batch], found.tolist(), strict=True):
        own = [rows[p] for p in range(len(rows)) if of_row[p] == label]
        others = [rows[p] for p in range(len(rows)) if of_row[p] != label]
        assert loss == pytest.approx(loss_of(feature, own, others, negatives), abs=1e-9)


@pytest.mark.parametrize("negatives", [1, 2, 50])
def test_gradient(negatives: int) -> None:
    proxies, positions = of_images(1, negatives=negatives), np.array([0, 3, 5, 1])
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 6))).requires_grad_()
    assert torch.autograd.gradcheck(lambda batch: proxies.losses(batch, positions), (features,))


def test_one_cluster_alone_has_nothing_to_be_told_from() -> None:
    proxies = of_images(2, np.zeros(4, np.int64), np.array([0, 1, 1, 2]))
    features = torch.ones(2, 6, dtype=torch.float64, requires_grad=True)
    losses = proxies.losses(features, np.array([0, 1]))
    (gradient,) = torch.autograd.grad(losses.sum(), features)
    assert losses.tolist() == [0, 0]
    assert (gradient == 0).all()


def test_rows_move_towards_the_images_of_their_cluster_and_camera() -> None:
    proxies = of_images(3)
    before = proxies.rows.numpy().copy()
    batch = np.array([4, 5, 0, 1, 4])  # an image may be drawn twice
    features = np.random.default_rng(1).normal(size=(5, 6))
    proxies.update(torch.from_numpy(features), batch)
    rows = proxy_labels(LABELS, CAMIDS)[batch].tolist()
    expected = memory_oracle.memory_update(before, features, rows, 0.2, "all")
    np.testing.assert_allclose(proxies.rows, expected, atol=1e-12)
    np.testing.assert_array_equal(proxies.rows[2:4], before[2:4])  # no image of theirs was in the batch


def test_proxies_start_from_the_means_of_clusters_in_cameras() -> None:
    features = unit_features(4, len(LABELS))
    rows = CameraProxies(0.5, momentum=0.2, temperature=0.07, num_negatives=2).start(features, LABELS, CAMIDS)
    expected = memory_oracle.unit(features[[1, 4]].mean(axis=0))  # cluster 0 in camera 3
    assert rows.shape == (5, features.shape[1])
    np.testing.assert_allclose(rows[1], expected, atol=1e-6)


def test_rows_that_were_passed_in_stay() -> None:
    rows = torch.eye(6, dtype=torch.float64)[:5]
    proxies = CameraProxies(0.5, momentum=0.2, temperature=0.07, num_negatives=2)(rows, LABELS, CAMIDS)
    proxies.update(torch.ones(2, 6, dtype=torch.float64), np.array([0, 3]))
    assert torch.equal(rows, torch.eye(6, dtype=torch.float64)[:5])
    assert not torch.equal(proxies.rows, rows)
