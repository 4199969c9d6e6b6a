from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from calr_cli.errors import DataError
from calr_cli.evaluation import ranking_metrics
from tests.support import oracles

NO_MATCH = "no query has a match in the gallery: an image of its identity from another camera"


def squared_euclidean(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return ((left[:, None].astype(np.float64) - right[None]) ** 2).sum(axis=2)


def test_golden(golden: dict[str, np.ndarray]) -> None:
    query, gallery = golden["query"], golden["gallery"]
    features, pids, camids = golden["features"], golden["identity"], golden["camera"]
    distmat = squared_euclidean(features[query], features[gallery])
    metrics = ranking_metrics(distmat, pids[query], pids[gallery], camids[query], camids[gallery])
    assert metrics.mAP == pytest.approx(float(golden["map"]), abs=1e-5)
    np.testing.assert_allclose(metrics.cmc[:10], golden["cmc_top10"], atol=1e-5)


@st.composite
def retrievals(draw: st.DrawFn) -> tuple[np.ndarray, list[int], list[int], list[int], list[int]]:
    """Few distances, identities and cameras: ties, junk and same-camera matches are the rule."""
    queries, gallery = draw(st.integers(1, 5)), draw(st.integers(1, 12))

    def values(low: int, high: int, count: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

    distmat = np.array(values(0, draw(st.integers(0, 9)), queries * gallery), np.float64) / 7
    pids = values(-1, 3, queries), values(-1, 3, gallery)
    camids = values(0, 2, queries), values(0, 2, gallery)
    return distmat.reshape(queries, gallery), *pids, *camids


@settings(deadline=None, max_examples=200)
@given(case=retrievals(), dtype=st.sampled_from([np.float32, np.float64]))
def test_equals_the_oracle(
    case: tuple[np.ndarray, list[int], list[int], list[int], list[int]], dtype: type[np.floating]
) -> None:
    distmat, *ids = case
    mean, cmc, counted = oracles.retrieval(distmat.astype(dtype), *ids)
    if not counted:
        with pytest.raises(DataError, match=f"^{NO_MATCH}$"):
            ranking_metrics(distmat.astype(dtype), *ids)
        return
    metrics = ranking_metrics(distmat.astype(dtype), *ids)
    assert metrics.mAP == pytest.approx(mean, abs=1e-12)
    assert metrics.num_queries == counted
    found = metrics.cmc
    assert len(found) == distmat.shape[1]
    np.testing.assert_allclose(found[: len(cmc)], cmc)


@settings(deadline=None, max_examples=100)
@given(
    matches=st.lists(st.booleans(), min_size=1, max_size=40).filter(any),
    seed=st.integers(0, 2**32),
    levels=st.integers(1, 50),
)
def test_average_precision_is_scikit_learn_s(matches: list[bool], seed: int, levels: int) -> None:
    distances = np.random.default_rng(seed).integers(0, levels, len(matches)).astype(np.float32)
    g_pids = np.where(matches, 5, 6)
    metrics = ranking_metrics([distances], [5], g_pids, [0], np.ones(len(matches), int))
    assert metrics.mAP == pytest.approx(average_precision_score(matches, -distances), abs=1e-12)


def test_by_hand() -> None:
    # Query 0 (person 1, camera 0): the nearest is its own camera's and is left out, then junk, then a
    # wrong one, then a match: AP = (1/2 + 2/3) / 2. Query 1 has its match first. Query 2 has none.
    g_pids, g_camids = [1, -1, 2, 1, 1], [0, 1, 1, 1, 2]
    distmat = [[0.1, 0.2, 0.3, 0.4, 0.5], [0.9, 0.1, 0.2, 0.8, 0.7], [0.1, 0.2, 0.3, 0.4, 0.5]]
    metrics = ranking_metrics(distmat, [1, 2, 3], g_pids, [0, 0, 0], g_camids)
    assert metrics.mAP == pytest.approx(((1 / 2 + 2 / 3) / 2 + 1) / 2)
    assert metrics.cmc[:2].tolist() == [0.5, 1.0]
    assert metrics.num_queries == 2
    assert (metrics.rank(1), metrics.rank(5), metrics.rank(100)) == (0.5, 1.0, 1.0)


def test_equal_distances_are_one_threshold_for_ap_and_gallery_order_for_cmc() -> None:
    tied = [[0.5, 0.5]]
    first = ranking_metrics(tied, [1], [1, 2], [0], [1, 1])
    second = ranking_metrics(tied, [1], [2, 1], [0], [1, 1])
    assert first.mAP == second.mAP == 0.5
    assert (first.rank(1), second.rank(1)) == (1.0, 0.0)


def test_a_junk_query_is_no_query() -> None:
    # Person -1 would otherwise "match" nothing but still be counted.
    metrics = ranking_metrics([[0.1], [0.1]], [-1, 4], [4], [0, 0], [1])
    assert metrics.num_queries == 1


def test_cmc_has_fifty_ranks_and_rises() -> None:
    rng = np.random.default_rng(0)
    pids, camids = rng.integers(0, 9, 120), rng.integers(0, 3, 120)
    metrics = ranking_metrics(rng.random((20, 100)), pids[:20], pids[20:], camids[:20], camids[20:])
    assert metrics.cmc.shape == (50,)
    assert (np.diff(metrics.cmc) >= 0).all()


def test_a_first_match_beyond_the_last_rank_is_not_counted() -> None:
    pids = np.full(80, 2)
    pids[79] = 1
    metrics = ranking_metrics([np.arange(80)], [1], pids, [0], np.ones(80, int))
    assert metrics.rank(50) == 0
    assert metrics.mAP == pytest.approx(1 / 80)


def test_takes_tensors() -> None:
    distmat = torch.tensor([[0.1, 0.2, 0.3]])
    ids = torch.tensor([7]), torch.tensor([8, 7, 7]), torch.tensor([0]), torch.tensor([0, 1, 1])
    assert ranking_metrics(distmat, *ids).mAP == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ([0.1, 0.2], [1], [1, 2], [0], [1, 1]),
            "distmat has shape (2,), expected (queries, gallery images)",
        ),
        (([[0.1, 0.2]], [1, 1], [1, 2], [0], [1, 1]), "q_pids has shape (2,), but there are 1 queries"),
        (([[0.1, 0.2]], [1], [1], [0], [1, 1]), "g_pids has shape (1,), but there are 2 gallery images"),
        (([[0.1, 0.2]], [1], [1, 2], [0, 0], [1, 1]), "q_camids has shape (2,), but there are 1 queries"),
        (
            ([[0.1, 0.2]], [1], [1, 2], [0], [[1, 1]]),
            "g_camids has shape (1, 2), but there are 2 gallery images",
        ),
        (
            ([[0.1, np.nan]], [1], [1, 2], [0], [1, 1]),
            "a distance between query and gallery is not a finite number",
        ),
        (([[0.1, 0.2]], [1], [1, 2], [0], [0, 1]), NO_MATCH),
        ((np.empty((0, 2)), [], [1, 2], [], [0, 1]), NO_MATCH),
        ((np.empty((1, 0)), [1], [], [0], []), NO_MATCH),
    ],
)
def test_what_cannot_be_evaluated_is_said(arguments: tuple[object, ...], text: str) -> None:
    with pytest.raises(DataError) as caught:
        ranking_metrics(*arguments)
    assert caught.value.lines() == [text]
