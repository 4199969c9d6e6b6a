from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import silhouette_score

from calr_cli.clustering import agglomerative_labels
from calr_cli.clustering.agglomerative import agglomerative_partitions, best_by_silhouette, silhouette
from calr_cli.clustering.sparse_linkage import linkage_above, lowest_merges
from calr_cli.distances import jaccard_distance
from tests.support import oracles


def stored(similarities: np.ndarray) -> sparse.csr_array:
    """Both triangles of the upper triangle, without the diagonal and zeros."""
    upper = np.triu(similarities.astype(np.float32), 1)
    return sparse.csr_array(upper + upper.T)


def distances_of(similarities: sparse.csr_array) -> np.ndarray:
    dense = 1 - similarities.toarray().astype(np.float64)
    np.fill_diagonal(dense, 0)
    return dense


def random_similarities(seed: int, count: int, levels: int | None, density: float) -> sparse.csr_array:
    """Multiples of 1 / levels, 0 and 1 among them; or, without levels, hardly two alike."""
    rng = np.random.default_rng(seed)
    shape = (count, count)
    values = rng.random(shape) if levels is None else rng.integers(0, levels + 1, shape) / levels
    return stored(np.where(rng.random(shape) < density, values, 0))


def camera(count: int, seed: int) -> sparse.csr_array:
    """Jaccard similarities of made-up features, five images of an identity."""
    rng = np.random.default_rng(seed)
    features = np.repeat(rng.normal(size=(count // 5, 32)), 5, axis=0)
    features += 1.2 * rng.normal(size=features.shape)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return stored(1 - jaccard_distance(features, 20, 6))


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 13),
    levels=st.integers(1, 8),
    density=st.sampled_from([0.1, 0.3, 0.6, 1.0]),
    data=st.data(),
)
def test_ties_go_to_the_lowest_smallest_members(
    seed: int, count: int, levels: int, density: float, data: st.DataObject
) -> None:
    # Merging many pairs at once must not show: not in ties between averages of unlike denominators, nor
    # among pairs at distance 1, stored as nothing at all.
    similarities = random_similarities(seed, count, levels, density)
    num_clusters = data.draw(st.integers(1, count))
    expected = oracles.agglomerate(distances_of(similarities).tolist(), num_clusters)
    assert agglomerative_labels(similarities, num_clusters).tolist() == expected


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(2, 120),
    levels=st.sampled_from([1, 2, 8, 64, None]),
    density=st.sampled_from([0.02, 0.1, 0.5, 1.0]),
)
def test_equals_the_dense_clustering(seed: int, count: int, levels: int | None, density: float) -> None:
    similarities = random_similarities(seed, count, levels, density)
    dense = distances_of(similarities)
    for num_clusters in {1, 2, count // 5 or 1, count // 2, count - 1, count}:
        labels = agglomerative_labels(similarities, num_clusters)
        assert labels.dtype == np.int64
        assert labels.tolist() == agglomerative_labels(dense, num_clusters).tolist()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 60),
    levels=st.sampled_from([1, 2, 8, None]),
    density=st.sampled_from([0.02, 0.1, 0.5, 1.0]),
    data=st.data(),
)
def test_one_hierarchy_is_cut_as_several_are(
    seed: int, count: int, levels: int | None, density: float, data: st.DataObject
) -> None:
    # The merges that the smallest number needs are more than the others need: ties must not take a later one.
    similarities = random_similarities(seed, count, levels, density)
    counts = data.draw(st.lists(st.integers(1, count), min_size=1, max_size=6))
    found = agglomerative_partitions(similarities, counts)
    dense = distances_of(similarities)
    for num_clusters, labels in zip(counts, found, strict=True):
        assert labels.tolist() == agglomerative_labels(similarities, num_clusters).tolist()
        assert labels.tolist() == agglomerative_labels(dense, num_clusters).tolist()


def test_the_best_silhouette_of_a_camera_is_that_of_the_matrix() -> None:
    similarities, counts = camera(600, seed=1), [300, 240, 150, 120, 60, 12]
    labels, score = best_by_silhouette(similarities, counts)
    expected, expected_score = best_by_silhouette(distances_of(similarities).astype(np.float32), counts)
    assert (labels == expected).all()
    assert score == pytest.approx(expected_score, abs=1e-5)
    assert labels.max() + 1 not in (300, 12)  # five images of an identity


@pytest.mark.parametrize("num_clusters", [1, 7, 60, 240, 600])
def test_equals_the_dense_clustering_of_a_camera(num_clusters: int) -> None:
    # Large enough for several blocks of rows and, at few clusters, for several contractions.
    similarities = camera(1200, seed=num_clusters)
    labels = agglomerative_labels(similarities, num_clusters)
    assert (labels == agglomerative_labels(distances_of(similarities), num_clusters)).all()
    assert (labels == agglomerative_labels(similarities, num_clusters)).all()


def test_golden_partitions_of_every_camera(golden: dict[str, np.ndarray]) -> None:
    for camid in np.unique(golden["camera"]):
        features = golden["features"][golden["camera"] == camid]
        similarities = stored(1 - jaccard_distance(features, 15, 4))
        labels = agglomerative_labels(similarities, len(features) // 5)
        pairs = set(zip(labels.tolist(), golden[f"local_cam{camid}"].tolist(), strict=True))
        assert len(pairs) == len(features) // 5 == len(set(golden[f"local_cam{camid}"].tolist()))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), count=st.integers(2, 40), data=st.data())
def test_the_lowest_merges_have_the_heights_of_scipy(seed: int, count: int, data: st.DataObject) -> None:
    similarities = random_similarities(seed, count, None, 1.0)
    wanted = data.draw(st.integers(1, count - 1))
    heights = linkage(squareform(distances_of(similarities)), "average")[:wanted, 2]
    ours = np.sort(1 - lowest_merges(similarities, wanted)[2])[:wanted]
    assert ours == pytest.approx(heights, abs=1e-9)


def test_a_chain() -> None:
    # Each image's nearest is the next one: one pair merges at a time, however many rounds that takes.
    count = 200
    similarities = stored(np.diag(np.linspace(0.1, 0.9, count - 1), 1))
    for num_clusters in (1, 3, 50):
        expected = agglomerative_labels(distances_of(similarities), num_clusters)
        assert (agglomerative_labels(similarities, num_clusters) == expected).all()


def test_components_join_by_their_lowest_members() -> None:
    # {1, 3}, {2, 5} and {6, 7} merge; what is left, {0} and {4} too, is at distance 1 from each other.
    similarities = np.zeros((8, 8))
    similarities[1, 3] = similarities[2, 5] = similarities[6, 7] = 0.5
    assert [agglomerative_labels(stored(similarities), k).tolist() for k in (6, 5, 4, 3, 2, 1)] == [
        [0, 1, 2, 1, 3, 2, 4, 5],
        [0, 1, 2, 1, 3, 2, 4, 4],
        [0, 0, 1, 0, 2, 1, 3, 3],
        [0, 0, 0, 0, 1, 0, 2, 2],
        [0, 0, 0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]


def test_nothing_stored() -> None:
    assert agglomerative_labels(sparse.csr_array((5, 5), dtype=np.float32), 3).tolist() == [0, 0, 0, 1, 2]
    assert agglomerative_labels(sparse.csr_array((1, 1), dtype=np.float32), 1).tolist() == [0]


def test_duplicates() -> None:
    # Groups of equal images, at distance 0 within and 1 between; a chain of ties inside every group.
    groups = np.repeat(np.arange(6), 9)
    np.random.default_rng(0).shuffle(groups)
    similarities = stored(groups[:, None] == groups)
    labels = agglomerative_labels(similarities, 6)
    assert len(set(zip(labels.tolist(), groups.tolist(), strict=True))) == 6
    for num_clusters in (1, 4, 20, 53):
        expected = agglomerative_labels(distances_of(similarities), num_clusters)
        assert (agglomerative_labels(similarities, num_clusters) == expected).all()


def test_the_input_is_left_alone_in_any_form() -> None:
    similarities = random_similarities(3, 60, 8, 0.4)
    labels = agglomerative_labels(similarities, 12)
    backwards = similarities.copy()
    for start, stop in zip(similarities.indptr, similarities.indptr[1:], strict=False):
        backwards.indices[start:stop] = similarities.indices[start:stop][::-1]
        backwards.data[start:stop] = similarities.data[start:stop][::-1]
    long = sparse.csr_array(similarities)
    long.indices, long.indptr = long.indices.astype(np.int64), long.indptr.astype(np.int64)
    with_diagonal = sparse.csr_array(similarities + sparse.eye_array(60, dtype=np.float32))
    forms = [similarities, backwards, long, with_diagonal, similarities.tocoo(), similarities.tocsc()]
    for form in forms:
        before = [part.copy() for part in (form.data, form.toarray())]
        assert (agglomerative_labels(form, 12) == labels).all()
        silhouette(form, labels)
        assert (before[0] == form.data).all()
        assert (before[1] == form.toarray()).all()


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float64])
def test_any_type_of_number(dtype: type) -> None:
    similarities = random_similarities(4, 40, 1, 0.3)
    expected = agglomerative_labels(similarities, 8)
    given = similarities.astype(dtype)
    assert (agglomerative_labels(given, 8) == expected).all()
    assert silhouette(given, expected) == silhouette(similarities, expected)


@pytest.mark.parametrize("num_clusters", [0, -1, 4])
def test_impossible_numbers_of_clusters(num_clusters: int) -> None:
    with pytest.raises(ValueError, match=rf"^num_clusters is {num_clusters}, expected 1\.\.3$"):
        agglomerative_labels(sparse.csr_array((3, 3), dtype=np.float32), num_clusters)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(2, 14),
    clusters=st.integers(1, 8),
    density=st.sampled_from([0.1, 0.5, 1.0]),
)
def test_silhouette_equals_the_oracle(seed: int, count: int, clusters: int, density: float) -> None:
    similarities = random_similarities(seed, count, 10, density)
    labels = np.random.default_rng(seed).integers(0, clusters, count)  # singletons are common, gaps too
    expected = oracles.silhouette(distances_of(similarities), labels.tolist())
    assert silhouette(similarities, labels) == pytest.approx(expected, abs=1e-6)


def test_silhouette_of_a_camera_equals_scikit_learn() -> None:
    similarities = camera(1000, seed=5)
    labels = agglomerative_labels(similarities, 200)
    expected = silhouette_score(distances_of(similarities), labels, metric="precomputed")
    assert silhouette(similarities, labels) == pytest.approx(expected, abs=1e-6)


def test_silhouette_by_hand() -> None:
    # The pair: (0.8 - 0.2) / 0.8 for one, (1 - 0.2) / 1 for the other; the singleton counts 0.
    similarities = stored(np.array([[0, 0.8, 0.2], [0, 0, 0], [0, 0, 0]]))
    assert silhouette(similarities, np.array([0, 0, 1])) == pytest.approx((0.75 + 0.8 + 0) / 3)


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_silhouette_of_one_cluster_or_of_singletons_is_0(labels: list[int]) -> None:
    assert silhouette(stored(np.full((3, 3), 0.5)), np.array(labels)) == 0.0


def test_silhouette_of_a_collapsed_network_is_a_number() -> None:
    assert silhouette(stored(np.ones((4, 4))), np.array([0, 0, 1, 1])) == 0.0


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), count=st.integers(2, 40), least=st.sampled_from([0.05, 0.2, 0.5, 0.9]))
def test_groups_are_joined_as_long_as_they_are_similar(seed: int, count: int, least: float) -> None:
    similarities = random_similarities(seed, count, None, 0.5)
    tree = linkage(squareform(distances_of(similarities)), "average")
    labels = fcluster(tree, 1 - least, "distance")
    expected = np.unique(labels, return_index=True, return_inverse=True)
    by_first = np.argsort(np.argsort(expected[1]))[expected[2]]
    np.testing.assert_array_equal(linkage_above(similarities, least), by_first)
