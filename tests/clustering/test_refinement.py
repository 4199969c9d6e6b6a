from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calr_cli.clustering import cluster_weights, refine_by_camera, select_pivots
from calr_cli.clustering.refinement import cosine_probability, discards_by_schedule
from calr_cli.types import OUTLIER
from tests.conftest import load_golden
from tests.support import oracles


@pytest.mark.parametrize("similarity", ["s50", "s60"])
@pytest.mark.parametrize("rule", ["best", "last"])
def test_golden(golden: dict[str, np.ndarray], similarity: str, rule: str) -> None:
    refined = refine_by_camera(
        golden[f"{similarity}_global_label"],
        golden["local_label"],
        golden["camera"],
        golden[f"{similarity}_pivot_{rule}"],
    )
    np.testing.assert_array_equal(refined, golden[f"{similarity}_refined_{rule}"])
    weights = cluster_weights(refined, golden["camera"])
    np.testing.assert_allclose(weights, golden[f"{similarity}_weights_{rule}"], atol=1e-5)


def test_golden_b_really_discards() -> None:
    golden = load_golden("b")
    discards = (golden["s50_refined_best"] != golden["s50_global_label"]).sum()
    assert discards > 10  # pipeline_a hardly discards anything: parity on it proves little


# One line per image: global, local, camera; `*` marks the pivot, `x` what must go.
MANY_CLUSTERS = """
0  10 0 *   | 0  10 0     | 0  11 0 x   | 0  20 1     | 0  21 1
1  11 0 x   | 1  12 0 *   | 1  12 0     | 1  11 0 x   | 1  30 2
2  20 1     | 2  21 1     | 2  12 0     | 2  11 0     | 2  30 2
3  22 1 *   | 3  20 1 x   | 3  21 1 x   | 3  13 0     | 3  14 0
4  31 2 *   | 4  31 2     | 4  32 2 x   | 4  33 2 x   | 4  34 2 x
-1 10 0     | -1 22 1     | -1 31 2     | 5  35 2 *   | 5  10 0
"""  # cluster 2 has no pivot: all stay; cluster 5's pivot is alone in its camera


def test_by_hand_with_discards_in_many_clusters() -> None:
    cells = [cell.split() for line in MANY_CLUSTERS.strip().splitlines() for cell in line.split("|")]
    order = np.random.default_rng(3).permutation(len(cells))  # clusters interleaved, as they are in life
    cells = [cells[i] for i in order]
    labels, local, camids = (np.array([int(cell[n]) for cell in cells]) for n in range(3))
    marks = [cell[3] if len(cell) > 3 else "" for cell in cells]
    pivots = np.full(6, -1)
    for i, mark in enumerate(marks):
        if mark == "*":
            pivots[labels[i]] = i
    refined = refine_by_camera(labels, local, camids, pivots)
    expected = [OUTLIER if mark == "x" else label for mark, label in zip(marks, labels, strict=True)]
    assert refined.tolist() == expected
    assert len({labels[i] for i, mark in enumerate(marks) if mark == "x"}) == 4


images = st.lists(
    st.tuples(st.integers(-1, 4), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=30
)


@settings(deadline=None, max_examples=150)
@given(images=images, seed=st.integers(0, 2**32))
def test_only_ever_makes_outliers_and_equals_the_oracle(
    images: list[tuple[int, int, int]], seed: int
) -> None:
    named = {label: n for n, label in enumerate(sorted({g for g, _, _ in images} - {-1}))} | {-1: -1}
    labels = np.array([named[g] for g, _, _ in images])
    camids = np.array([camera for *_, camera in images])
    local = np.array([10 * camera + number for _, number, camera in images])  # unique over cameras
    scores = np.random.default_rng(seed).integers(0, 5, len(images)).astype(np.float64)
    pivots = select_pivots(labels, scores)
    before = labels.copy()
    refined = refine_by_camera(labels, local, camids, pivots)
    assert (labels == before).all()
    assert refined.tolist() == oracles.refine(
        labels.tolist(), local.tolist(), camids.tolist(), pivots.tolist()
    )
    changed = refined != labels
    assert (refined[changed] == OUTLIER).all()
    assert (camids[changed] == camids[pivots[labels[changed]]]).all()  # other cameras stay
    kept_pivots = pivots[pivots >= 0]
    assert (refined[kept_pivots] == labels[kept_pivots]).all()
    assert set(refined) - {-1} == set(labels) - {-1}  # no cluster becomes empty


def test_nothing_to_refine() -> None:
    none = np.empty(0, np.int64)
    outliers = np.array([-1, -1])
    assert refine_by_camera(outliers, np.array([0, 1]), np.array([0, 0]), none).tolist() == [-1, -1]
    assert cluster_weights(outliers, np.array([0, 0])).tolist() == []


def test_weights_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2, 2, 2, -1])
    camids = np.array([3, 3, 0, 1, 0, 0, 0, 5, 2])
    entropies = [0, math.log(2), -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))]
    expected = [math.log(1 + entropy) for entropy in entropies]
    np.testing.assert_allclose(cluster_weights(labels, camids), expected, atol=1e-7)
    assert cluster_weights(labels, camids)[0] == 0  # exactly: the loss tests for a sum of 0


@settings(deadline=None, max_examples=50)
@given(members=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=40))
def test_weights_equal_the_oracle(members: list[tuple[int, int]]) -> None:
    labels = np.unique([label for label, _ in members], return_inverse=True)[1]
    camids = np.array([camid for _, camid in members])
    expected = oracles.cluster_weights(labels.tolist(), camids.tolist())
    np.testing.assert_allclose(cluster_weights(labels, camids), expected, atol=1e-6)


def test_cosine_schedule_starts_at_1_and_ends_at_three_quarters() -> None:
    assert cosine_probability(0, 50) == 1
    assert cosine_probability(50, 50) == pytest.approx(0.75)
    assert cosine_probability(25, 50) == pytest.approx(0.5 * (1 + math.cos(math.pi / 6)))


def test_schedule_carries_out_the_share_it_says_and_adds_nothing() -> None:
    labels = np.arange(6000) % 3
    refined = np.where(np.arange(6000) % 2, OUTLIER, labels)
    assert discards_by_schedule(labels, refined, 1.0, np.random.default_rng(0)) is refined
    assert (discards_by_schedule(labels, refined, 0.0, np.random.default_rng(0)) == labels).all()
    some = discards_by_schedule(labels, refined, 0.75, np.random.default_rng(0))
    assert (some == OUTLIER).sum() / 3000 == pytest.approx(0.75, abs=0.03)
    assert ((some == labels) | (some == refined)).all()
    assert (some == discards_by_schedule(labels, refined, 0.75, np.random.default_rng(0))).all()
