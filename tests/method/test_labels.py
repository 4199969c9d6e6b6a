"""The labels of an epoch of stage 2, and what is said of them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn.cluster import DBSCAN
from sklearn.metrics import adjusted_rand_score

from calr_cli.config.schema import Settings
from calr_cli.distances import jaccard_distance
from calr_cli.errors import DataError, MemoryLimitError
from calr_cli.events import Reporter, SilentReporter
from calr_cli.method.inter import label_epoch
from calr_cli.method.labels import EpochLabels, refinement_quality
from calr_cli.types import OUTLIER
from tests.support.features import unit_features
from tests.support.stages import (
    CPU,
    Notebook,
)


def test_label_step_by_the_golden_numbers(golden: dict[str, np.ndarray]) -> None:
    for similarity in (50, 60):
        for rule in ("best", "last"):
            settings = Settings(
                inter={
                    "clustering": {"min_similarity": similarity / 100},
                    "refinement": {"pivot": rule},
                }
            )
            labels = labels_of(settings, golden)
            assert np.array_equal(labels.global_labels, golden[f"s{similarity}_global_label"])
            assert np.array_equal(labels.pivots, golden[f"s{similarity}_pivot_{rule}"])
            assert np.array_equal(labels.refined_labels, golden[f"s{similarity}_refined_{rule}"])


def labels_of(
    settings: Settings, golden: dict[str, np.ndarray], epoch: int = 0, reporter: Reporter | None = None
) -> EpochLabels:
    return label_epoch(
        settings,
        golden["features"],
        golden["camera"],
        golden["local_label"],
        epoch,
        CPU,
        reporter or SilentReporter(),
    )


def test_dbscan_takes_infomaps_place(golden: dict[str, np.ndarray]) -> None:
    """Pivots and refinement work on its clusters; Infomap's own settings leave them alone."""
    notebook = Notebook()
    changes = {"method": "dbscan", "eps": 0.5}
    labels = labels_of(Settings(inter={"clustering": changes}), golden, reporter=notebook)
    expected = DBSCAN(eps=0.5, min_samples=4, metric="precomputed").fit_predict(
        jaccard_distance(golden["features"], 30, 6)
    )
    assert np.array_equal(labels.global_labels, expected)
    assert labels.global_labels.max() > 5
    assert (labels.global_labels != labels.refined_labels).any()
    assert any("pairs an image share a neighbour" in note for note in notebook.notes)
    other = labels_of(Settings(inter={"clustering": {**changes, "min_cluster_size": 50}}), golden)
    assert np.array_equal(other.global_labels, expected)


def test_without_infomap_jaccard_is_map_equation_and_says_so(
    golden: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_infomap, own = (
        labels_of(Settings(inter={"clustering": {"method": method}}), golden).global_labels
        for method in ("jaccard", "map-equation")
    )
    assert adjusted_rand_score(by_infomap, own) > 0.8
    monkeypatch.setattr("calr_cli.method.clusters.HAS_INFOMAP", False)
    notebook = Notebook()
    jaccard = Settings(inter={"clustering": {"method": "jaccard"}})
    np.testing.assert_array_equal(labels_of(jaccard, golden, reporter=notebook).global_labels, own)
    assert notebook.notes[0] == (
        "Infomap is not installed: calr finds the communities itself. Install it with: "
        "pip install 'calr-cli[infomap]'"
    )


@pytest.mark.parametrize("method", ["infomap", "dbscan", "map-equation"])
def test_labels_are_the_same_to_the_bit_when_made_again(golden: dict[str, np.ndarray], method: str) -> None:
    settings = Settings(inter={"clustering": {"method": method}})
    first, second = labels_of(settings, golden), labels_of(settings, golden)
    assert np.array_equal(first.global_labels, second.global_labels)
    assert np.array_equal(first.refined_labels, second.refined_labels)
    assert np.array_equal(first.pivots, second.pivots)


@pytest.mark.parametrize("method", ["infomap", "dbscan", "map-equation"])
@pytest.mark.parametrize("kind", ["fewer than k", "one image many times", "one camera", "duplicates"])
def test_degenerate_features_have_labels(method: str, kind: str) -> None:
    features = unit_features(0, 5 if kind == "fewer than k" else 60)
    if kind == "one image many times":
        features[:] = features[0]
    if kind == "duplicates":
        features[30:] = features[:30]
    count = len(features)
    camids = np.zeros(count, np.int64) if kind == "one camera" else np.arange(count) % 3
    settings = Settings(inter={"clustering": {"method": method}})
    labels = label_epoch(settings, features, camids, np.arange(count), 0, CPU, SilentReporter())
    for found in (labels.global_labels, labels.refined_labels):
        assert found.shape == (count,)
        assert set(found) - {OUTLIER} <= set(range(len(labels.pivots)))
    if kind == "one image many times":
        assert (labels.global_labels == 0).all()
    features[3, 1] = np.nan
    with pytest.raises(DataError, match=r"^the features of image 3 are not all finite numbers"):
        label_epoch(settings, features, camids, np.arange(count), 0, CPU, SilentReporter())


def test_a_memory_limit_is_kept_or_refused_in_one_line(golden: dict[str, np.ndarray]) -> None:
    dbscan = {"clustering": {"method": "dbscan", "eps": 0.99}}
    with pytest.raises(MemoryLimitError) as caught:
        labels_of(Settings(inter=dbscan, memory_limit_gb=1e-5), golden)
    count = len(golden["features"])
    assert caught.value.lines() == [
        f"30 neighbours of {count} images would take {count * 30 * 40 / 1e6:.1f} MB, and 0.0 MB may be used. "
        "Raise memory_limit_gb"
    ]
    # Enough for the neighbours, too little for the pairs within eps.
    with pytest.raises(
        MemoryLimitError, match=r"^the pairs of [\d,]+ images would take .* Raise memory_limit_gb"
    ):
        labels_of(Settings(inter=dbscan, memory_limit_gb=count * 40 * 30 / 1e9), golden)


def test_an_approximate_search_tells_its_recall(golden: dict[str, np.ndarray]) -> None:
    notebook = Notebook()
    labels_of(Settings(search={"approximate_above": 100}), golden, reporter=notebook)
    assert any(
        re.match(r"approximate search: \d+\.\d % of the true 15 neighbours found", n) for n in notebook.notes
    )
    notebook.notes.clear()
    labels_of(Settings(search={"approximate_above": 100_000}), golden, reporter=notebook)
    assert not any("approximate" in note for note in notebook.notes)


def test_quality_before_and_after_is_of_the_same_images() -> None:
    """Two clusters; refinement throws out one image rightly and one wrongly."""
    labels = EpochLabels(
        global_labels=np.array([0, 0, 0, 1, 1, OUTLIER]),
        refined_labels=np.array([0, 0, OUTLIER, 1, OUTLIER, OUTLIER]),
        pivots=np.array([0, 3]),
        criterion=0.0,
    )
    quality = refinement_quality(labels, np.array([5, 5, 6, 7, 7, 8]))
    assert quality.discarded_right == 0.5
    clustered, kept = quality.clustered, quality.kept
    assert clustered.before.num_images == clustered.after.num_images == 5
    assert clustered.before.pair_precision == pytest.approx(2 / 4)
    assert clustered.after.pair_precision == 1
    assert clustered.after.pair_recall == pytest.approx(1 / 2)
    assert kept.before.num_images == kept.after.num_images == 3
    assert kept.after.pair_f == 1


def test_the_cosine_schedule_discards_less_in_time(golden: dict[str, np.ndarray]) -> None:
    always, late = (
        labels_of(Settings(inter={"epochs": 2, "refinement": {"schedule": schedule}}), golden, epoch)
        for schedule, epoch in (("always", 5), ("cosine", 5))
    )
    discarded = [(labels.global_labels != labels.refined_labels).sum() for labels in (always, late)]
    assert discarded[1] <= discarded[0]
    kept = (late.refined_labels != OUTLIER) | (always.refined_labels == OUTLIER)
    assert kept.all()  # nothing is discarded that the rule would keep
