"""Both stages on a small dataset: what they write, what they may look at, and how they go on."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import DBSCAN

from calr_cli.config.schema import Settings
from calr_cli.data.local_labels import read_local_labels
from calr_cli.distances import jaccard_distance
from calr_cli.errors import DataError, MemoryLimitError, TrainingError
from calr_cli.events import Reporter, SilentReporter
from calr_cli.figures import EpochFigures
from calr_cli.method.inter import label_epoch, train_inter
from calr_cli.method.intra import train_intra
from calr_cli.method.labels import EpochLabels, refinement_quality
from calr_cli.prepare.prepared import load_dataset
from calr_cli.prepare.published import prepare_dataset
from calr_cli.runs.find import create_run, open_run
from calr_cli.runs.folder import RunFolder
from calr_cli.training.checkpoint import load_model
from calr_cli.types import OUTLIER, Dataset, ImageSet
from tests.support.features import unit_features
from tests.support.small import small_dataset, small_settings

CPU = torch.device("cpu")


class Notebook(SilentReporter):
    """Remembers warnings; interrupts after a given number of epochs, as Ctrl-C would."""

    def __init__(self, epochs: int | None = None) -> None:
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.epochs = epochs

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def metric(self, row: EpochFigures) -> None:
        if self.epochs is not None:
            self.epochs -= 1
            if self.epochs == 0:
                raise KeyboardInterrupt


def run_intra(settings: Settings, dataset: Dataset, folder: Path) -> RunFolder:
    run = create_run(settings, "intra", [CPU], folder)
    train_intra(settings, dataset, run, CPU, SilentReporter())
    return run


def run_inter(settings: Settings, dataset: Dataset, labels: Path | None, folder: Path) -> RunFolder:
    run = create_run(settings, "inter", [CPU], folder)
    local = None if labels is None else read_local_labels(labels, dataset.train)
    train_inter(settings, dataset, local, run, CPU, SilentReporter())
    return run


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_model(path)[0].state_dict()


def assert_same_model(a: Path, b: Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def figures(run: RunFolder, *left_out: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in ("seconds", *left_out)} for row in run.read_metrics()]


def test_exactly_these_files_are_written(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    intra = run_intra(small_settings(), dataset, tmp_path / "intra")
    cameras = {
        f"cam{c}/{name}" for c in range(3) for name in ("local_labels.csv", "metrics.jsonl", "model.pth")
    }
    assert files(intra.path) == {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "local_labels.csv",
        *cameras,
    }
    assert len(intra.read_metrics()) == 3 * 2
    inter = run_inter(small_settings(), dataset, intra.local_labels, tmp_path / "inter")
    assert files(inter.path) == {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "checkpoint.pth",
        "last.pth",
        "model.pth",
        "selected.pth",
        "selection.json",
    }
    assert [row["epoch"] for row in inter.read_metrics()] == [0, 1, 2]
    selection = json.loads((inter.path / "selection.json").read_text())
    assert selection["criteria"].keys() == {"1", "2", "3"}
    assert selection["criteria"][str(selection["selected"])] == max(selection["criteria"].values())
    assert load_model(inter.model)[1].epoch == selection["selected"]
    # The camera head works in the first epochs only; there are two left without it after three.
    assert inter.read_metrics()[0]["camera_loss"] is not None


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_identities_change_no_label_and_no_weight(tmp_path: Path) -> None:
    """Identities are for the figures only: shuffled ones give the same training, other figures."""
    dataset = small_dataset(tmp_path / "data")
    train = dataset.train
    shuffled = replace(dataset, train=replace(train, pids=np.random.default_rng(0).permutation(train.pids)))
    unknown = replace(dataset, train=replace(train, pids=np.full(len(train), -1)))
    runs = []
    for name, data in (("true", dataset), ("shuffled", shuffled), ("unknown", unknown)):
        intra = run_intra(small_settings(), data, tmp_path / name / "intra")
        inter = run_inter(small_settings(), data, intra.local_labels, tmp_path / name / "inter")
        runs.append((intra, inter))
    (intra, inter), *others = runs
    for other_intra, other_inter in others:
        assert intra.local_labels.read_bytes() == other_intra.local_labels.read_bytes()
        assert_same_model(inter.model, other_inter.model)
        assert figures(inter, "quality") == figures(other_inter, "quality")
    assert inter.read_metrics()[0]["quality"] != others[0][1].read_metrics()[0]["quality"]
    assert "quality" not in others[1][1].read_metrics()[0]


def test_names_and_order_of_files_change_nothing(tmp_path: Path) -> None:
    """Names start with the identity, and clustering depends on record order: names must not decide it."""
    dataset = small_dataset(tmp_path / "data")
    source = dataset.train.root
    renamed = tmp_path / "renamed" / "market1501" / source.name
    shutil.copytree(source, renamed)
    folder = renamed / "bounding_box_train"
    rng = np.random.default_rng(1)
    for number, path in zip(rng.permutation(1000), sorted(folder.iterdir()), strict=False):
        camera = path.name.split("_")[1]
        path.rename(folder / f"{number + 1:04d}_{camera}_{number:06d}_00.jpg")
    first = run_intra(small_settings(), dataset, tmp_path / "a" / "intra")
    first_model = run_inter(small_settings(), dataset, first.local_labels, tmp_path / "a" / "inter").model
    prepare_dataset("market1501", tmp_path / "renamed", SilentReporter())
    other = load_dataset("market1501")
    assert other.train.paths != dataset.train.paths
    second = run_intra(small_settings(), other, tmp_path / "b" / "intra")
    assert np.array_equal(
        read_local_labels(first.local_labels, dataset.train),
        read_local_labels(second.local_labels, other.train),
    )
    assert_same_model(
        first_model, run_inter(small_settings(), other, second.local_labels, tmp_path / "b" / "inter").model
    )


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    dataset, settings = small_dataset(tmp_path / "data"), small_settings()
    whole = run_intra(settings, dataset, tmp_path / "whole" / "intra")
    for epochs in (1, 3):  # within the first camera, and within the second
        path = tmp_path / f"cut{epochs}"
        run = create_run(settings, "intra", [CPU], path)
        with pytest.raises(KeyboardInterrupt):
            train_intra(settings, dataset, run, CPU, Notebook(epochs))
        train_intra(settings, dataset, open_run(path, "intra"), CPU, SilentReporter())
        assert whole.local_labels.read_bytes() == run.local_labels.read_bytes()
        assert figures(whole) == figures(run)

    inter = run_inter(settings, dataset, whole.local_labels, tmp_path / "whole" / "inter")
    local = read_local_labels(whole.local_labels, dataset.train)
    run = create_run(settings, "inter", [CPU], tmp_path / "cut" / "inter")
    with pytest.raises(KeyboardInterrupt):
        train_inter(settings, dataset, local, run, CPU, Notebook(2))
    assert not run.model.exists()
    train_inter(settings, dataset, local, open_run(run.path, "inter"), CPU, SilentReporter())
    assert_same_model(inter.model, run.model)
    assert figures(inter) == figures(run)


def test_seeds_differ_and_repeat(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    plain = small_settings(inter={"refinement": {"enabled": False}})
    first = run_inter(plain, dataset, None, tmp_path / "1")
    assert_same_model(first.model, run_inter(plain, dataset, None, tmp_path / "2").model)
    other = run_inter(plain.model_copy(update={"seed": 2}), dataset, None, tmp_path / "3")
    assert not torch.equal(weights(first.model)["neck.weight"], weights(other.model)["neck.weight"])


@pytest.mark.parametrize(
    ("clustering", "message"),
    [
        (
            {"min_similarity": 1.0, "min_cluster_size": 40},
            "all 48 images are outliers: there is no cluster to train on. Lower inter.clustering.",
        ),
        (
            {"k": 48, "min_similarity": 0.0, "min_cluster_size": 2},
            "one cluster holds all 48 clustered images: there is nothing to tell apart. Raise "
            "inter.clustering.min_similarity",
        ),
    ],
)
def test_no_cluster_and_one_giant_cluster_are_told(
    tmp_path: Path, clustering: dict[str, Any], message: str
) -> None:
    settings = small_settings(inter={"clustering": clustering, "refinement": {"enabled": False}})
    with pytest.raises(TrainingError) as raised:
        run_inter(settings, small_dataset(tmp_path / "data"), None, tmp_path / "run")
    assert str(raised.value).startswith(message)


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_its_last_epoch(tmp_path: Path) -> None:
    settings = small_settings(
        inter={"optimiser": {"lr": 1e30}, "refinement": {"enabled": False}, "iters": 12}
    )
    with pytest.raises(
        TrainingError, match=r"epoch 1/3: the loss is not a number at iteration \d+\. What was saved last"
    ):
        run_inter(settings, small_dataset(tmp_path / "data"), None, tmp_path / "run")
    assert not (tmp_path / "run" / "model.pth").exists()


def test_too_few_clusters_for_a_batch_shrink_it(tmp_path: Path) -> None:
    settings = small_settings(inter={"batch_size": 64, "epochs": 1, "refinement": {"enabled": False}})
    run = create_run(settings, "inter", [CPU], tmp_path / "run")
    notebook = Notebook()
    train_inter(settings, small_dataset(tmp_path / "data"), None, run, CPU, notebook)
    assert any(
        "fewer than a batch of 64: the batch shrinks for this epoch" in text for text in notebook.warnings
    )
    assert run.read_metrics()[0]["batch"] < 64


@pytest.mark.parametrize("count", [1, 3, 9, 10, 22])
def test_cameras_of_few_images(tmp_path: Path, count: int) -> None:
    """VeRi has a camera of 22 images; K_c = N_c // 5 needs ten for two clusters."""
    dataset = small_dataset(tmp_path / "data")
    camids = np.zeros(len(dataset.train), np.int64)
    camids[:count] = 1
    few = replace(dataset, train=replace(dataset.train, camids=camids))
    run = run_intra(small_settings(), few, tmp_path / "run")
    labels = read_local_labels(run.local_labels, few.train)
    assert len(np.unique(labels[:count])) == max(1, count // 5)
    assert not set(labels[:count]) & set(labels[count:])


def test_images_of_one_camera_train_in_both_stages_and_what_is_lost_is_said(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    one = replace(dataset, train=replace(dataset.train, camids=np.zeros(len(dataset.train), np.int64)))
    run, notebook = create_run(small_settings(), "intra", [CPU], tmp_path / "run"), Notebook()
    train_intra(small_settings(), one, run, CPU, notebook)
    assert [text for text in notebook.warnings if text.startswith("all training images are of one camera: ")]
    finished = run_inter(small_settings(), one, run.local_labels, tmp_path / "inter")
    assert len(finished.read_metrics()) == small_settings().inter.epochs


def test_too_many_clusters_are_cut_and_warned_about(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    settings = small_settings(intra={"clustering": {"num_clusters": 600, "k1": 5, "k2": 2}, "epochs": 1})
    run = create_run(settings, "intra", [CPU], tmp_path / "run")
    notebook = Notebook()
    train_intra(settings, dataset, run, CPU, notebook)
    assert [row["clusters"] for row in run.read_metrics()] == [15, 15, 15]
    assert notebook.warnings[0].startswith("15 clusters for 16 images leave most of them alone")


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


@pytest.mark.parametrize("method", ["infomap", "dbscan"])
def test_labels_are_the_same_to_the_bit_when_made_again(golden: dict[str, np.ndarray], method: str) -> None:
    settings = Settings(inter={"clustering": {"method": method}})
    first, second = labels_of(settings, golden), labels_of(settings, golden)
    assert np.array_equal(first.global_labels, second.global_labels)
    assert np.array_equal(first.refined_labels, second.refined_labels)
    assert np.array_equal(first.pivots, second.pivots)


@pytest.mark.parametrize("method", ["infomap", "dbscan"])
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


def test_image_set_reaches_training_in_record_order(tmp_path: Path) -> None:
    train: ImageSet = small_dataset(tmp_path / "data").train
    assert list(train.digests) == sorted(train.digests)
