from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from calr_cli.clustering import infomap_labels
from calr_cli.clustering.links import links
from calr_cli.distances import knn
from calr_cli.errors import ConfigError
from calr_cli.types import OUTLIER, Neighbours
from tests.support.features import unit_features


@pytest.mark.parametrize("min_similarity", [0.5, 0.6])
def test_golden(golden: dict[str, np.ndarray], min_similarity: float) -> None:
    labels = infomap_labels(knn(golden["features"], 15), min_similarity)
    expected = golden[f"s{min_similarity * 100:.0f}_global_label"]
    if version("infomap").startswith("2.16"):
        np.testing.assert_array_equal(labels, expected)
    else:  # partitions differ a little between versions of the engine
        assert adjusted_rand_score(expected, labels) >= 0.9


def groups(sizes: list[int]) -> np.ndarray:
    """Tight groups, at right angles to each other."""
    features = np.repeat(np.eye(len(sizes)), sizes, axis=0)
    features += 0.01 * np.random.default_rng(0).normal(size=features.shape)
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def test_fewer_than_min_cluster_size_are_outliers() -> None:
    labels = infomap_labels(knn(groups([6, 4, 5, 1]), 5), 0.5)
    assert (labels[6:10] == OUTLIER).all()  # four, below 5
    assert labels[15] == OUTLIER  # an isolate
    assert sorted({*labels[:6]}) != sorted({*labels[10:15]})
    assert {*labels[:6]} | {*labels[10:15]} == {0, 1}
    assert len({*labels[:6]}) == len({*labels[10:15]}) == 1
    lower = infomap_labels(knn(groups([6, 4, 5, 1]), 5), 0.5, min_cluster_size=4)
    assert sorted(set(lower.tolist())) == [-1, 0, 1, 2]
    every = infomap_labels(knn(groups([6, 4, 5, 1]), 5), 0.5, min_cluster_size=1)
    assert every[15] == OUTLIER  # an isolate has no links, so it is in no cluster whatever the size
    assert sorted(set(every.tolist())) == [-1, 0, 1, 2]


def test_labels_are_contiguous_and_the_same_every_time() -> None:
    neighbours = knn(unit_features(1, 300, 5), 10)
    labels = infomap_labels(neighbours, 0.7)
    kept = labels[labels != OUTLIER]
    assert sorted(set(kept.tolist())) == list(range(int(kept.max()) + 1))
    assert np.bincount(kept).min() >= 5
    np.testing.assert_array_equal(labels, infomap_labels(neighbours, 0.7))


@pytest.mark.parametrize("count", [0, 1, 8])
def test_no_links_means_all_outliers(count: int) -> None:
    neighbours = knn(np.eye(8, dtype=np.float32)[:count], 4)
    assert infomap_labels(neighbours, 0.5).tolist() == [OUTLIER] * count


def test_one_giant_cluster_is_one_cluster() -> None:
    assert infomap_labels(knn(groups([40]), 15), 0.5).tolist() == [0] * 40


def test_links_by_hand() -> None:
    neighbours = Neighbours(
        np.array([[0, 1, 2], [2, 1, 0], [0, 1, 2]]),  # an exact duplicate may come before the image itself
        np.array([[1, 0.5, 0.4], [1, 1, 0.5], [0.6, 0.49, 0.2]], np.float32),
    )
    assert links(neighbours, 0.5).tolist() == [
        [False, True, False],
        [True, False, True],
        [True, False, False],
    ]


def test_without_infomap_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calr_cli.clustering.infomap.HAS_INFOMAP", False)
    with pytest.raises(ConfigError) as caught:
        infomap_labels(knn(unit_features(0, 5), 3), 0.5)
    assert caught.value.lines() == [
        "inter.clustering.method = infomap: Infomap is not installed. Install it with: "
        "pip install 'calr-cli[infomap]', or do without it by --set inter.clustering.method=jaccard, as "
        "--recipe plus does"
    ]


IMPORTS_IN_ORDER = """
import sys
import calr_cli.clustering.infomap
names = list(sys.modules)
assert "infomap" in names
if "faiss" in names:
    assert names.index("faiss") < names.index("infomap"), "infomap before faiss"
import numpy as np
from calr_cli.clustering.infomap import infomap_labels
from calr_cli.distances.knn import knn
features = np.repeat(np.eye(3, dtype=np.float32), 6, axis=0)
print(infomap_labels(knn(features, 6), 0.5).tolist())
"""


def test_faiss_is_loaded_before_infomap_and_both_work_in_one_process() -> None:
    # The other order crashes the interpreter, which only a fresh one can show.
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS_IN_ORDER], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([0] * 6 + [1] * 6 + [2] * 6)
