from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from calr_cli.clustering.agreement import LabelAgreement, label_agreement

labelings = st.lists(st.tuples(st.integers(-1, 1), st.integers(-1, 1)), min_size=1, max_size=14)


@given(labelings)
def test_moved_is_the_least_over_all_pairings(images: list[tuple[int, int]]) -> None:
    first, second = (np.array(labels) for labels in zip(*images, strict=True))
    alone = range(100, 103)  # a cluster of the second need have no partner
    pairings = permutations([*np.unique(first), *alone], len(np.unique(second)))
    mappings = [dict(zip(np.unique(second), chosen, strict=True)) for chosen in pairings]
    agreement = label_agreement(first, second)
    assert agreement.num_moved == min(sum(a != mapping[b] for a, b in images) for mapping in mappings)
    assert agreement.num_moved == label_agreement(second, first).num_moved
    assert agreement.ari == pytest.approx(adjusted_rand_score(first, second))


def test_other_names_for_the_same_clusters() -> None:
    assert label_agreement([0, 0, 7, 7, 3], [4, 4, 0, 0, 9]) == LabelAgreement(ari=1.0, num_moved=0)


def test_a_cluster_split_in_two_moves_its_smaller_part() -> None:
    assert label_agreement([0, 0, 0, 0, 0, 1], [0, 0, 0, 5, 5, 1]).num_moved == 2
