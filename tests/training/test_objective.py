"""The objective that trains: its numbers are the released ones, and its parts add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from calr_cli.models.camera_classifier import CameraClassifier, draw_kept_units
from calr_cli.training.cluster_contrast import ClusterContrast
from calr_cli.training.losses import camera_loss
from calr_cli.training.objective import CameraAlignment, Objective
from calr_cli.training.proxies import CameraProxies
from calr_cli.training.reproducibility import keyed_rng
from tests.support.features import unit_features

LABELS = np.array([0, 0, -1, 1, 0, 2, 1, 2, -1])
CAMIDS = np.array([0, 1, 0, 0, 1, 1, 0, 1, 2])
BATCH = np.array([4, 0, 3, 5, 7, 6])


@pytest.mark.parametrize("mode", ["avg", "hard"])
def test_three_steps_by_the_golden_numbers(golden: dict[str, np.ndarray], mode: str) -> None:
    """The weighted mean, its gradient and the update, as a training step takes them."""
    contrast = ClusterContrast(0.05, 0.1, "hard" if mode == "hard" else "all")
    rows = torch.from_numpy(golden["mem_init"])
    for step in range(3):
        x, y, loss, grad, memory = (
            golden[f"mem_{mode}_{key}{step}"] for key in ("x", "y", "loss", "grad", "memory")
        )
        term = contrast(rows, y, np.zeros(len(y), np.int64))  # the batch is all there is
        objective = Objective([term], y, np.zeros(len(y), np.int64), golden["mem_weights"])
        batch = np.arange(len(y))
        features = torch.from_numpy(x).requires_grad_()
        shares = torch.from_numpy(objective.shares(batch)).to(features)
        found = (shares * objective.losses(features, batch)).sum()
        torch.autograd.backward(found)
        assert found.item() == pytest.approx(float(loss), abs=1e-5)
        assert features.grad is not None
        np.testing.assert_allclose(features.grad.numpy(), grad, atol=1e-6)
        objective.update(features.detach(), batch)
        np.testing.assert_allclose(term.rows.numpy(), memory, atol=1e-6)
        rows = term.rows


def test_terms_add_up_by_their_weights_and_each_moves_its_rows() -> None:
    features = torch.from_numpy(unit_features(1, len(BATCH)))
    start = unit_features(2, len(LABELS))
    losses = [ClusterContrast(0.05, 0.1), CameraProxies(0.3, 0.2, 0.07, 4)]
    terms = [loss(torch.from_numpy(loss.start(start, LABELS, CAMIDS)), LABELS, CAMIDS) for loss in losses]
    before = [term.rows.clone() for term in terms]
    each = [term.losses(features, BATCH) for term in terms]
    objective = Objective(terms, LABELS, CAMIDS)
    torch.testing.assert_close(objective.losses(features, BATCH), each[0] + 0.3 * each[1])
    swapped = Objective(terms[::-1], LABELS, CAMIDS)
    torch.testing.assert_close(swapped.losses(features, BATCH), each[0] + 0.3 * each[1])
    objective.update(features, BATCH)
    for term, rows in zip(terms, before, strict=True):
        assert not torch.equal(term.rows, rows)


def test_shares_follow_the_class_weights_of_the_batch() -> None:
    weights = np.array([2.0, 1.0, 0.0], np.float32)
    shares = Objective([], LABELS, CAMIDS, weights).shares(BATCH)
    np.testing.assert_allclose(shares, np.array([2, 2, 1, 0, 0, 1]) / 6)
    np.testing.assert_allclose(Objective([], LABELS, CAMIDS).shares(BATCH), 1 / 6)


def test_the_camera_loss_is_of_the_images_in_the_batch() -> None:
    torch.manual_seed(0)
    classifier = CameraClassifier(6, 3)
    objective = Objective([], LABELS, CAMIDS, None, CameraAlignment(classifier, 0.5, "reference"))
    kept = torch.from_numpy(draw_kept_units(len(BATCH), keyed_rng(0, "dropout")))
    logits = classifier(torch.from_numpy(unit_features(3, len(BATCH), 6)), kept)
    expected = camera_loss(logits, torch.from_numpy(CAMIDS[BATCH]), "reference")
    assert torch.equal(objective.camera_loss(logits, BATCH), expected)


def test_within_cameras_an_image_is_told_apart_from_its_own_camera_alone() -> None:
    labels, camids = np.array([0, 1, 2, 3]), np.array([0, 0, 1, 1])
    rows, features = torch.eye(4), torch.eye(4)[[0, 2]]
    batch = np.array([0, 2])
    both = ClusterContrast(0.5, 0.1)(rows, labels, camids).losses(features, batch)
    within = ClusterContrast(0.5, 0.1, within_cameras=True)(rows, labels, camids).losses(features, batch)
    one_other, three_others = (np.log(1 + count * np.exp(-2)) for count in (1, 3))
    np.testing.assert_allclose(within, [one_other] * 2, rtol=1e-5)
    np.testing.assert_allclose(both, [three_others] * 2, rtol=1e-5)
