from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calr_cli.data.samplers import cluster_batches

members = st.lists(st.tuples(st.integers(-1, 5), st.integers(0, 3)), min_size=1, max_size=40).filter(
    lambda images: any(label >= 0 for label, _ in images)
)


def draw(
    labels: list[int] | np.ndarray,
    camids: list[int] | np.ndarray,
    batch_size: int,
    num_instances: int,
    iterations: int = 1,
    seed: int = 0,
) -> np.ndarray:
    return cluster_batches(
        np.array(labels),
        np.array(camids),
        batch_size=batch_size,
        num_instances=num_instances,
        iterations=iterations,
        rng=np.random.default_rng(seed),
    )


def groups_of_passes(stream: np.ndarray, labels: np.ndarray, num_instances: int) -> list[list[int]]:
    """Cut a stream of whole passes into what each cluster gave."""
    sizes, groups, start = Counter(labels.tolist()), [], 0
    while start < len(stream):
        size = num_instances if sizes[labels[stream[start]]] > 1 else 1
        groups.append(stream[start : start + size].tolist())
        start += size
    return groups


@settings(deadline=None, max_examples=100)
@given(
    images=members,
    num_instances=st.integers(1, 6),
    passes=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_what_each_cluster_gives(
    images: list[tuple[int, int]], num_instances: int, passes: int, seed: int
) -> None:
    labels, camids = (np.array(values) for values in zip(*images, strict=True))
    # A batch larger than a pass shrinks to the pass: each batch shows one whole pass.
    batches = draw(labels, camids, 10_000, num_instances, passes, seed)
    clusters = sorted(set(labels.tolist()) - {-1})
    for one_pass in batches:
        groups = groups_of_passes(one_pass, labels, num_instances)
        assert sorted(labels[group[0]] for group in groups) == clusters  # a permutation of the clusters
        for anchor, *others in groups:
            label = labels[anchor]
            inside = np.flatnonzero(labels == label)
            if len(inside) == 1:
                assert not others
                continue
            assert len(others) == num_instances - 1
            candidates = inside[camids[inside] != camids[anchor]]
            if not len(candidates):
                candidates = inside[inside != anchor]
            assert set(others) <= set(candidates.tolist())  # never an outlier, other cameras first
            if len(candidates) >= num_instances:
                assert len(set(others)) == len(others)


def test_one_candidate_too_few_is_drawn_with_replacement() -> None:
    # Four others for three places, and with three: the release repeats images in the second case.
    enough = np.array([draw([0] * 5, [0, 1, 1, 1, 1], 4, 4, seed=s)[0] for s in range(300)])
    anchored = enough[enough[:, 0] == 0]
    assert len(anchored) > 20
    assert all(len(set(row)) == 4 for row in anchored.tolist())
    exactly = np.array([draw([0] * 4, [0, 1, 1, 1], 4, 4, seed=s)[0] for s in range(300)])
    anchored = exactly[exactly[:, 0] == 0]
    assert any(len(set(row)) < 4 for row in anchored.tolist())


def test_anchor_and_others_are_uniform() -> None:
    batches = draw([0] * 6, [0, 0, 0, 1, 1, 1], 2, 2, iterations=6000)
    for column in batches.T:
        shares = np.bincount(column, minlength=6) / 6000
        np.testing.assert_allclose(shares, 1 / 6, atol=0.025)


def test_passes_are_cut_into_batches_and_the_last_partial_one_is_dropped() -> None:
    # Five clusters of two, two each: ten images a pass, two batches of four and two images dropped.
    labels, camids = np.repeat(np.arange(5), 2), np.tile([0, 1], 5)
    batches = draw(labels, camids, 4, 2, iterations=7)
    assert batches.shape == (7, 4)
    for first, second in zip(batches[:-1:2], batches[1::2], strict=True):
        both = np.concatenate([first, second])
        assert len(set(both.tolist())) == 8  # of one pass: nothing twice
    orders = {tuple(labels[batch[::2]]) for batch in batches[::2]}
    assert len(orders) > 1  # a new permutation follows


def test_a_batch_shrinks_to_the_pass_where_there_are_too_few_images() -> None:
    assert draw([0, 0, 1, -1], [0, 1, 0, 0], 64, 4, iterations=3).shape == (3, 5)
    assert draw([0, -1], [0, 0], 64, 4, iterations=2).tolist() == [[0], [0]]


def test_a_generator_gives_the_same_batches_again_and_global_ones_do_not_count() -> None:
    labels, camids = np.arange(40) % 7, np.arange(40) % 3
    first = draw(labels, camids, 8, 4, iterations=5, seed=3)
    np.random.default_rng(1).random(3)
    assert (first == draw(labels, camids, 8, 4, iterations=5, seed=3)).all()
    assert (first != draw(labels, camids, 8, 4, iterations=5, seed=4)).any()


def test_labels_need_not_be_contiguous() -> None:
    assert sorted(set(draw([9, 9, 4, 4], [0, 1, 0, 1], 64, 2)[0].tolist())) == [0, 1, 2, 3]


def test_nothing_to_sample() -> None:
    with pytest.raises(ValueError, match=r"^every image is an outlier: there is nothing to sample$"):
        draw([-1, -1], [0, 1], 4, 2)
