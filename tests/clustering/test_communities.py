"""The clusters of the recipe plus, with each of the two searches for communities."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy import sparse

from calr_cli.clustering.communities import LOWEST_BAR, FindModules, jaccard_communities, large_modules
from calr_cli.clustering.infomap import infomap_modules
from calr_cli.clustering.map_equation import map_equation_modules
from calr_cli.types import OUTLIER


@pytest.fixture(params=["Infomap", "calr"])
def find(request: pytest.FixtureRequest) -> FindModules:
    return partial(infomap_modules, directed=False) if request.param == "Infomap" else map_equation_modules


def blocks(*parts: tuple[int, float]) -> sparse.csr_array:
    """Groups of images, each of one size and with one similarity between all of its images."""
    whole = sparse.block_diag([np.full((size, size), value) for size, value in parts])
    dense = whole.toarray().astype(np.float32)
    np.fill_diagonal(dense, 0)
    return sparse.csr_array(dense)


def clusters(labels: np.ndarray) -> list[list[int]]:
    """The images of each cluster."""
    return [np.flatnonzero(labels == label).tolist() for label in range(int(labels.max()) + 1)]


def test_communities_of_jaccard_similarities(find: FindModules) -> None:
    labels = jaccard_communities(blocks((6, 0.8), (5, 0.6), (3, 0.9)), 0.25, find)
    assert clusters(labels) == [list(range(6)), list(range(6, 11))]
    assert (labels[11:] == OUTLIER).all()  # three are fewer than five
    smaller = jaccard_communities(blocks((6, 0.8), (5, 0.6), (3, 0.9)), 0.25, find, min_cluster_size=3)
    assert sorted(map(len, clusters(smaller))) == [3, 5, 6]
    assert labels.dtype == np.int64


@pytest.mark.parametrize(
    ("max_outliers", "bar"), [(0, 0.1), (0.2, 0.1), (0.3, 0.25), (0.5, 0.4), (0.8, 0.5), (1, 0.5)]
)
def test_the_bar_is_as_high_as_the_outliers_allow(find: FindModules, max_outliers: float, bar: float) -> None:
    """Four groups of a quarter each: from each bar on, one group fewer is linked."""
    similarity = blocks((8, 0.12), (8, 0.27), (8, 0.42), (8, 0.6))
    labels = jaccard_communities(similarity, max_outliers, find)
    expected = [group for group, value in enumerate((0.12, 0.27, 0.42, 0.6)) if value >= bar]
    assert sorted(clusters(labels)) == [list(range(8 * group, 8 * group + 8)) for group in expected]


def test_the_bar_rises_as_features_improve(find: FindModules) -> None:
    """Two groups that a low bar would join part once the links within them are strong."""
    near = blocks((20, 0.2)).toarray()
    far = near.copy()
    far[:10, :10], far[10:, 10:] = 0.7, 0.7
    np.fill_diagonal(far, 0)
    assert clusters(jaccard_communities(sparse.csr_array(near), 0.25, find)) == [list(range(20))]
    assert clusters(jaccard_communities(sparse.csr_array(far), 0.25, find)) == [
        list(range(10)),
        list(range(10, 20)),
    ]


def test_more_outliers_than_allowed_where_the_lowest_bar_leaves_them(find: FindModules) -> None:
    labels = jaccard_communities(blocks((6, 0.11), (30, 0.05)), 0.25, find)
    assert clusters(labels) == [list(range(6))]
    assert LOWEST_BAR == 0.1


@pytest.mark.parametrize("count", [1, 8])
def test_no_jaccard_links_means_all_outliers(find: FindModules, count: int) -> None:
    nothing = sparse.csr_array((count, count), dtype=np.float32)
    for max_outliers in (0.25, 1.0):
        assert jaccard_communities(nothing, max_outliers, find).tolist() == [OUTLIER] * count


def test_jaccard_communities_are_the_same_every_time(find: FindModules) -> None:
    rng = np.random.default_rng(0)
    upper = np.triu(np.where(rng.random((200, 200)) < 0.1, rng.random((200, 200)), 0), 1).astype(np.float32)
    similarity = sparse.csr_array(upper + upper.T)
    labels = jaccard_communities(similarity, 0.25, find)
    np.testing.assert_array_equal(labels, jaccard_communities(similarity, 0.25, find))
    kept = labels[labels != OUTLIER]
    assert sorted(set(kept.tolist())) == list(range(int(kept.max()) + 1))


def test_large_modules_keep_their_order() -> None:
    modules = np.array([7, 7, 3, OUTLIER, 3, 3, 9, OUTLIER, OUTLIER])
    assert large_modules(modules, 2).tolist() == [1, 1, 0, -1, 0, 0, -1, -1, -1]
