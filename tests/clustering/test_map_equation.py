from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import sparse

from calr_cli.clustering.infomap import infomap_modules
from calr_cli.clustering.map_equation import description_length, map_equation_modules, steps_of_walk
from calr_cli.clustering.quality import label_quality
from calr_cli.distances.jaccard import jaccard_similarity
from calr_cli.types import OUTLIER
from tests.support.features import unit_features

TWO_TRIANGLES = np.array(
    [[0, 1, 1], [0, 2, 1], [1, 2, 1], [3, 4, 1], [3, 5, 1], [4, 5, 1], [2, 3, 1]], np.float64
)


def entropy(shares: list[float]) -> float:
    """Bits per symbol of the best code for symbols that come with these shares of their sum."""
    whole = sum(shares)
    return -sum(share / whole * np.log2(share / whole) for share in shares if share)


def by_definition(links: np.ndarray, labels: np.ndarray) -> float:
    """The map equation as the paper states it: the entropies of all codes, by how often each is used."""
    links = np.vstack([links, links[:, [1, 0, 2]]])
    whole = links[:, 2].sum()
    visits = [links[links[:, 0] == image, 2].sum() / whole for image in range(len(labels))]
    leaving, length = [], 0.0
    for label in set(labels.tolist()):
        inside = labels == label
        out = inside[links[:, 0].astype(int)] & ~inside[links[:, 1].astype(int)]
        leaving.append(links[out, 2].sum() / whole)
        used = [leaving[-1], *np.array(visits)[inside]]
        length += sum(used) * entropy(used)
    return length + sum(leaving) * entropy(leaving) if sum(leaving) else length


def random_links(seed: int, count: int, degree: float = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows, columns = np.nonzero(np.triu(rng.random((count, count)) < degree / count, 1))
    return np.column_stack([rows, columns, rng.random(len(rows)) + 0.1])


def partitions(count: int) -> Iterator[np.ndarray]:
    """Every way to divide ``count`` images, once."""
    labels = [0] * count

    def rest(place: int, used: int) -> Iterator[np.ndarray]:
        if place == count:
            yield np.array(labels)
            return
        for labels[place] in range(used + 1):
            yield from rest(place + 1, max(used, labels[place] + 1))

    yield from rest(0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_the_length_is_that_of_the_definition(seed: int) -> None:
    links = random_links(seed, 30)
    for communities in (1, 2, 7, 30):
        labels = np.arange(30) % communities
        length = description_length(steps_of_walk(links, 30), labels)
        assert length == pytest.approx(by_definition(links, labels), abs=1e-9)


def test_the_length_by_hand() -> None:
    """Of 14 steps 2 lead to the other triangle; a triangle's code has words for 2, 2, 3 visits and 1 exit."""
    labels = np.array([0, 0, 0, 1, 1, 1])
    used = [2, 2, 3, 1]
    expected = 2 * 8 / 14 * entropy([float(share) for share in used]) + 2 / 14 * 1
    assert description_length(steps_of_walk(TWO_TRIANGLES, 6), labels) == pytest.approx(expected)
    assert map_equation_modules(TWO_TRIANGLES, 6).tolist() == labels.tolist()


@pytest.mark.parametrize("seed", range(12))
def test_finds_the_best_of_all_partitions(seed: int) -> None:
    links = random_links(seed, 6)
    found = map_equation_modules(links, 6)
    found[found == OUTLIER] = 6 + np.flatnonzero(found == OUTLIER)  # alone, which costs nothing
    steps = steps_of_walk(links, 6)
    least = min(description_length(steps, labels) for labels in partitions(6))
    assert description_length(steps, np.unique(found, return_inverse=True)[1]) <= least + 1e-9


def test_on_features_as_good_as_infomap(golden: dict[str, np.ndarray]) -> None:
    similarity = jaccard_similarity(golden["features"], 15, 4, min_similarity=0.2)
    pairs = sparse.triu(similarity, k=1, format="coo")
    links = np.column_stack([pairs.row, pairs.col, pairs.data]).astype(np.float64)
    count = similarity.shape[0]
    steps, lengths, scores = steps_of_walk(links, count), [], []
    for modules in (infomap_modules(links, count, directed=False), map_equation_modules(links, count)):
        alone = modules == OUTLIER
        labels = np.unique(np.where(alone, -1 - np.arange(count), modules), return_inverse=True)[1]
        lengths.append(description_length(steps, labels))
        scores.append(label_quality(modules, golden["identity"]).pair_f)
    assert lengths[1] <= lengths[0] * 1.003
    assert scores[1] >= scores[0] - 0.05


def test_images_without_links_are_outliers_and_the_others_are_numbered_from_0() -> None:
    links = TWO_TRIANGLES + [[2, 2, 0]] * len(TWO_TRIANGLES)
    assert map_equation_modules(links, 9).tolist() == [OUTLIER, OUTLIER, 0, 0, 0, 1, 1, 1, OUTLIER]
    for count in (0, 3):
        assert map_equation_modules(np.empty((0, 3)), count).tolist() == [OUTLIER] * count


def test_the_same_seed_gives_the_same_and_every_seed_the_clear_groups() -> None:
    features = unit_features(3, 300, 6)
    pairs = sparse.triu(jaccard_similarity(features, 10, 3), k=1, format="coo")
    links = np.column_stack([pairs.row, pairs.col, pairs.data]).astype(np.float64)
    first = map_equation_modules(links, 300, seed=1)
    np.testing.assert_array_equal(first, map_equation_modules(links, 300, seed=1))
    assert (first != map_equation_modules(links, 300, seed=2)).any()
    for seed in range(5):
        assert map_equation_modules(TWO_TRIANGLES, 6, seed).tolist() == [0, 0, 0, 1, 1, 1]


def test_the_scale_of_the_weights_does_not_matter() -> None:
    links = random_links(0, 60)
    small = links * [1, 1, 2.0**-40]
    np.testing.assert_array_equal(map_equation_modules(links, 60), map_equation_modules(small, 60))
