"""One pass over the distances against loops over pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from calr_cli.evaluation import retrieval_metrics
from calr_cli.report import retrieval
from calr_cli.report.retrieval import Retrieval, look_at_retrieval
from calr_cli.types import UNKNOWN_PID, Dataset, FloatArray, ImageSet
from tests.support.features import unit_features

QUERIES, GALLERY, CAMERAS = 14, 40, 3


def image_set(count: int, rng: np.random.Generator) -> ImageSet:
    names = tuple(map(str, range(count)))
    return ImageSet(Path(), names, rng.integers(0, 4, count), rng.integers(0, CAMERAS, count), names)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> tuple[Retrieval, Dataset, FloatArray, FloatArray]:
    monkeypatch.setattr(retrieval, "_BLOCK_BYTES", 5 * 4 * GALLERY)  # blocks of five queries
    rng = np.random.default_rng(3)
    dataset = Dataset("made-up", image_set(1, rng), image_set(QUERIES, rng), image_set(GALLERY, rng))
    dataset.gallery.pids[:3] = UNKNOWN_PID
    q_features, g_features = (unit_features(n, n, 8) for n in (QUERIES, GALLERY))
    found = look_at_retrieval(q_features, g_features, dataset, torch.device("cpu"))
    return found, dataset, q_features, g_features


def test_metrics_and_nearest(looked_at: tuple[Retrieval, Dataset, FloatArray, FloatArray]) -> None:
    found, dataset, q_features, g_features = looked_at
    query, gallery = dataset.query, dataset.gallery
    truth = (query.pids, gallery.pids, query.camids, gallery.camids)
    expected = retrieval_metrics(q_features, g_features, *truth)
    assert found.metrics.mAP == pytest.approx(expected.mAP)
    similarity = q_features @ g_features.T
    np.testing.assert_array_equal(found.nearest, np.argsort(-similarity, axis=1)[:, :10])
    np.testing.assert_allclose(found.similarities, -np.sort(-similarity, axis=1)[:, :10], atol=1e-6)
    order = found.by_precision()
    assert (np.diff(found.metrics.average_precision[order]) <= 0).all()


def test_pairs_are_counted_as_evaluation_counts_them(
    looked_at: tuple[Retrieval, Dataset, FloatArray, FloatArray],
) -> None:
    found, dataset, q_features, g_features = looked_at
    same, different = [], []
    for q in range(QUERIES):
        for g in range(GALLERY):
            similarity = float(q_features[q] @ g_features[g])
            if dataset.gallery.pids[g] == UNKNOWN_PID:
                continue
            if dataset.query.pids[q] != dataset.gallery.pids[g]:
                different.append(similarity)
            elif dataset.query.camids[q] != dataset.gallery.camids[g]:
                same.append(similarity)
    np.testing.assert_array_equal(found.same, np.histogram(same, found.edges)[0])
    np.testing.assert_array_equal(found.different, np.histogram(different, found.edges)[0])
    threshold, share = found.same_accepted(0.1)
    assert np.mean(np.array(different) >= threshold) <= 0.1
    assert share == pytest.approx(np.mean(np.array(same) >= threshold))


def test_camera_pairs(looked_at: tuple[Retrieval, Dataset, FloatArray, FloatArray]) -> None:
    found, dataset, q_features, g_features = looked_at
    for a in range(CAMERAS):
        for b in range(CAMERAS):
            q, g = dataset.query.camids == a, dataset.gallery.camids == b
            truth = (dataset.query.pids[q], dataset.gallery.pids[g], np.full(q.sum(), a), np.full(g.sum(), b))
            if a == b:
                assert np.isnan(found.camera_map[a, b])
            else:
                expected = retrieval_metrics(q_features[q], g_features[g], *truth).mAP
                assert found.camera_map[a, b] == pytest.approx(expected)
