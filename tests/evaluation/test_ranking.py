from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from calr_cli.errors import DataError
from calr_cli.evaluation import ranking, ranking_metrics, ranks
from calr_cli.evaluation.ranking import metrics_of_blocks
from calr_cli.types import RetrievalMetrics
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


Case = tuple[np.ndarray, list[int], list[int], list[int], list[int]]


def slow_queries(case: Case) -> list[tuple[float, float, int]]:
    """Average precision, inverse negative penalty and rank of the first match of every query."""
    distmat, q_pids, g_pids, q_camids, g_camids = case
    found = []
    for row, pid, camid in zip(distmat, q_pids, q_camids, strict=True):
        kept = [
            j
            for j in range(len(g_pids))
            if g_pids[j] != -1 and not (g_pids[j] == pid and g_camids[j] == camid)
        ]
        matches = [j for j in kept if g_pids[j] == pid]
        if pid == -1 or not matches:
            found.append((np.nan, np.nan, -1))
            continue
        precision = oracles.average_precision([g_pids[j] == pid for j in kept], [row[j] for j in kept])
        farthest = max(row[j] for j in matches)
        penalty = len(matches) / sum(row[j] <= farthest for j in kept)
        ranking = sorted(kept, key=lambda j: (row[j], j))
        found.append((precision, penalty, min(ranking.index(j) for j in matches)))
    return found


@settings(deadline=None, max_examples=200)
@given(
    case=retrievals(),
    dtype=st.sampled_from([np.float32, np.float64]),
    chunk_bytes=st.sampled_from([1, 100, 10**6]),
    group_bytes=st.sampled_from([1, 100, 10**6]),
    most_passes=st.sampled_from([0, 2, 384]),
)
def test_equals_the_oracle(
    case: Case, dtype: type[np.floating], chunk_bytes: int, group_bytes: int, most_passes: int
) -> None:
    distmat, *ids = case
    distmat = distmat.astype(dtype)
    mean, cmc, counted = oracles.retrieval(distmat, *ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_BLOCK_BYTES", 3 * chunk_bytes)
        patch.setattr(ranking, "_CHUNK_BYTES", chunk_bytes)
        patch.setattr(ranks, "_GROUP_BYTES", group_bytes)
        patch.setattr(ranks, "_MOST_PASSES", most_passes)
        if not counted:
            with pytest.raises(DataError, match=f"^{NO_MATCH}$"):
                ranking_metrics(distmat, *ids)
            return
        metrics = ranking_metrics(distmat, *ids)
    assert metrics.mAP == pytest.approx(mean, abs=1e-12)
    assert metrics.num_queries == counted
    assert len(metrics.cmc) == distmat.shape[1]
    np.testing.assert_allclose(metrics.cmc[: len(cmc)], cmc)
    precisions, penalties, first = zip(*slow_queries((distmat, *ids)), strict=True)
    np.testing.assert_allclose(metrics.average_precision, precisions, atol=1e-12)
    assert metrics.mINP == pytest.approx(np.nanmean(penalties), abs=1e-12)
    assert metrics.first_match.tolist() == list(first)


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
    # Query 0's farthest match is third of three, query 1's only match first of four.
    assert metrics.mINP == pytest.approx((2 / 3 + 1) / 2)
    np.testing.assert_allclose(metrics.average_precision, [(1 / 2 + 2 / 3) / 2, 1, np.nan])
    assert metrics.first_match.tolist() == [1, 0, -1]


def test_equal_distances_are_one_threshold_for_ap_and_gallery_order_for_cmc() -> None:
    tied = [[0.5, 0.5]]
    first = ranking_metrics(tied, [1], [1, 2], [0], [1, 1])
    second = ranking_metrics(tied, [1], [2, 1], [0], [1, 1])
    assert first.mAP == second.mAP == 0.5
    assert (first.rank(1), second.rank(1)) == (1.0, 0.0)
    # The farthest match and the wrong one are retrieved together, whichever comes first.
    assert first.mINP == second.mINP == 0.5


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
            "the distances of query 0 are not all finite numbers",
        ),
        (([[0.1, 0.2]], [1], [1, 2], [0], [0, 1]), NO_MATCH),
        (([[0.1, 0.2]], [1], [-1, -1], [0], [1, 1]), NO_MATCH),
        (([[0.1, 0.2]], [-1], [-1, -1], [0], [1, 1]), NO_MATCH),
        (
            (np.empty((0, 2)), [], [1, 2], [], [0, 1]),
            "0 queries and 2 gallery images: nothing to rank",
        ),
        ((np.empty((1, 0)), [1], [], [0], []), "1 queries and 0 gallery images: nothing to rank"),
    ],
)
def test_what_cannot_be_evaluated_is_said(arguments: tuple[object, ...], text: str) -> None:
    with pytest.raises(DataError) as caught:
        ranking_metrics(*arguments)
    assert caught.value.lines() == [text]


def some(
    seed: int, queries: int, gallery: int, ids: int, dtype: type[np.floating] = np.float32
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    distmat = rng.integers(0, 50, (queries, gallery)).astype(dtype)
    pids, camids = rng.integers(-1, ids, queries + gallery), rng.integers(0, 4, queries + gallery)
    return distmat, pids[:queries], pids[queries:], camids[:queries], camids[queries:]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_query_with_a_distance_that_is_no_number_is_named(bad: float) -> None:
    # Rows are ranked in another order than they come in, query 9 before query 4.
    distmat, q_pids, g_pids, q_camids, g_camids = some(3, 12, 60, 3)
    q_pids[[4, 9]], q_camids[[4, 9]], g_pids[:21], g_camids[:21] = (2, 1), 3, [2] + [1] * 20, 0
    distmat[[4, 9], 30] = bad
    g_pids[30] = 0
    with pytest.raises(DataError, match=r"^the distances of query 4 are not all finite numbers$"):
        ranking_metrics(distmat, q_pids, g_pids, q_camids, g_camids)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_distances_that_do_not_count_may_be_anything(bad: float) -> None:
    # Many callers put infinity where an image is not to be found.
    distmat = np.array([[bad, bad, 0.3, 0.4], [bad, bad, bad, bad]])
    ids = [1, 2], [1, -1, 2, 1], [0, 0], [0, 1, 0, 1]
    metrics = ranking_metrics(distmat, *ids)
    assert (metrics.mAP, metrics.num_queries) == (0.5, 1)


def test_a_sum_of_distances_beyond_float32_is_no_error() -> None:
    metrics = ranking_metrics(np.full((1, 2), 3e38, np.float32), [1], [1, 2], [0], [1, 1])
    assert metrics.mAP == 0.5


def test_float64_is_ranked_as_float64() -> None:
    # In float32 the two would be at one distance, and the wrong one first.
    distmat = np.array([[1 + 1e-12, 1.0]])
    assert ranking_metrics(distmat, [1], [2, 1], [0], [1, 1]).mAP == 1
    assert ranking_metrics(distmat.astype(np.float32), [1], [2, 1], [0], [1, 1]).mAP == 0.5


@pytest.mark.parametrize("distance", [0.0, 0.25])
def test_all_equal_distances(distance: float) -> None:
    # Every image is retrieved at once; the first match stands behind the wrong ones before it.
    distmat = np.full((2, 5), distance)
    metrics = ranking_metrics(distmat, [1, 3], [2, 1, 1, 2, 3], [0, 0], [0, 1, 0, 1, 2])
    np.testing.assert_allclose(metrics.average_precision, [1 / 4, 1 / 5])
    assert metrics.first_match.tolist() == [1, 4]
    assert metrics.mINP == pytest.approx((1 / 4 + 1 / 5) / 2)


@pytest.mark.parametrize("images", [40, 1000])  # above and below the number that is found by search
def test_one_identity_is_all_right(images: int) -> None:
    distmat = np.random.default_rng(0).random((3, images))
    metrics = ranking_metrics(distmat, [7] * 3, [7] * images, [0, 1, 2], [0] * images)
    assert metrics.num_queries == 2  # the first query has no other camera
    assert metrics.mAP == metrics.mINP == metrics.rank(1) == 1


def test_many_matches_are_found_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    case = some(4, 30, 3000, 3)
    searched = ranking_metrics(*case)
    monkeypatch.setattr(ranks, "_MOST_PASSES", 10**9)
    assert_same(ranking_metrics(*case), searched)


def assert_same(found: RetrievalMetrics, expected: RetrievalMetrics) -> None:
    assert (found.mAP, found.mINP, found.num_queries) == (expected.mAP, expected.mINP, expected.num_queries)
    for name in ("cmc", "average_precision", "first_match"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 7, 40])
def test_blocks_and_threads_change_no_bit(rows: int, threads: int) -> None:
    distmat, *ids = some(5, 40, 5000, 300)
    expected = ranking_metrics(distmat, *ids)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = metrics_of_blocks(torch.from_numpy(distmat).split(rows), distmat.shape, *ids)
    finally:
        torch.set_num_threads(before)
    assert_same(found, expected)


def test_input_stays_as_it_is_and_may_be_read_only() -> None:
    distmat, *ids = some(6, 10, 50, 4)
    before = distmat.copy()
    distmat.flags.writeable = False
    tensor = torch.from_numpy(before.copy())
    assert_same(ranking_metrics(tensor, *ids), ranking_metrics(distmat, *ids))
    np.testing.assert_array_equal(distmat, before)
    np.testing.assert_array_equal(tensor, before)


@pytest.mark.gpu
@pytest.mark.parametrize("most_passes", [0, 384])
def test_a_gpu_gives_the_same(most_passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_MOST_PASSES", most_passes)
    distmat, *ids = some(7, 40, 500, 12)
    on_gpu = ranking_metrics(torch.from_numpy(distmat).cuda(), *(torch.from_numpy(i).cuda() for i in ids))
    assert_same(on_gpu, ranking_metrics(distmat, *ids))
