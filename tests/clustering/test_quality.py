from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from calr_cli.clustering import label_quality
from calr_cli.figures import LabelQuality
from tests.support import oracles

clusterings = st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 4)), min_size=1, max_size=24)


def share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def f_score(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(deadline=None, max_examples=100)
@given(images=clusterings)
def test_equals_counting_every_pair_and_every_image(images: list[tuple[int, int]]) -> None:
    labels, pids = [label for label, _ in images], [pid for _, pid in images]
    quality = label_quality(labels, pids)
    both, same_label, same_pid = oracles.pair_counts(labels, pids)
    precision, recall = oracles.bcubed(labels, pids)
    names = [str(name) for name in oracles.without_outliers(labels)]
    expected = LabelQuality(
        pair_precision=share(both, same_label),
        pair_recall=share(both, same_pid),
        pair_f=f_score(share(both, same_label), share(both, same_pid)),
        bcubed_precision=precision,
        bcubed_recall=recall,
        bcubed_f=f_score(precision, recall),
        nmi=float(normalized_mutual_info_score(pids, names, average_method="arithmetic")),
        num_clusters=len(set(labels) - {-1}),
        num_singletons=sum(labels.count(label) == 1 for label in set(labels) - {-1}),
        num_identities=len(set(pids)),
        num_images=len(images),
    )
    assert asdict(quality) == pytest.approx(asdict(expected), abs=1e-9)


def test_by_hand() -> None:
    # Cluster 0 = {a, a, b}, cluster 1 = {b}, two outliers {a}, {c}.
    quality = label_quality([0, 0, 0, 1, -1, -1], [1, 1, 2, 2, 1, 3])
    assert quality.pair_precision == pytest.approx(1 / 3)
    assert quality.pair_recall == pytest.approx(1 / 4)  # aa of {aa, aa, aa, bb}
    assert quality.bcubed_precision == pytest.approx((2 / 3 + 2 / 3 + 1 / 3 + 1 + 1 + 1) / 6)
    assert quality.bcubed_recall == pytest.approx((2 / 3 + 2 / 3 + 1 / 2 + 1 / 2 + 1 / 3 + 1) / 6)
    assert (quality.num_clusters, quality.num_singletons) == (2, 1)
    assert (quality.num_identities, quality.num_images) == (3, 6)


def test_outliers_are_singletons_not_one_cluster() -> None:
    outliers = label_quality([0, 0, -1, -1, -1], [1, 1, 2, 2, 2])
    singletons = label_quality([0, 0, 1, 2, 3], [1, 1, 2, 2, 2])
    assert asdict(outliers) | {"num_clusters": 4, "num_singletons": 3} == asdict(singletons)
    assert (outliers.num_clusters, outliers.num_singletons) == (1, 0)
    assert outliers.pair_recall == pytest.approx(1 / 4)
    assert outliers.nmi < 1


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [-1, -1, -1, -1]])
def test_nothing_clustered_is_precise_and_recalls_nothing(labels: list[int]) -> None:
    quality = label_quality(labels, [1, 1, 2, 2])
    assert (quality.pair_precision, quality.pair_recall, quality.pair_f) == (1.0, 0.0, 0.0)


def test_perfect_labels_under_other_names() -> None:
    quality = label_quality([7, 7, 3, 3], [1, 1, 2, 2])
    assert {*list(asdict(quality).values())[:7]} == {1.0}


def test_one_cluster_of_one_person_is_perfect() -> None:
    assert label_quality([0, 0], [4, 4]).nmi == 1.0


def test_per_camera_figures_are_weighted_by_images_and_counts_are_summed() -> None:
    labels, pids = np.array([0, 0, 1, 0, 0, 0]), np.array([1, 2, 2, 1, 1, 1])
    camids = np.array([0, 0, 0, 2, 2, 2])
    first, second = label_quality([0, 0, 1], [1, 2, 2]), label_quality([0, 0, 0], [1, 1, 1])
    together = label_quality(labels, pids, camids)
    assert together.bcubed_f == pytest.approx((first.bcubed_f * 3 + second.bcubed_f * 3) / 6)
    assert together.nmi == pytest.approx((first.nmi + second.nmi) / 2)
    assert (together.num_clusters, together.num_singletons, together.num_identities) == (3, 1, 3)
    assert together.num_images == 6
    tensors = label_quality(*(torch.from_numpy(values) for values in (labels, pids, camids)))
    assert tensors == together
