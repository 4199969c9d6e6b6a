"""`--recipe plus` on a small dataset: what it writes, what it may look at, and how it goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calr_cli.config.loading import resolve_settings
from calr_cli.config.schema import Settings
from calr_cli.data.local_labels import read_local_labels
from calr_cli.errors import TrainingError
from calr_cli.events import Reporter, SilentReporter
from calr_cli.figures import EpochFigures
from calr_cli.method import processes
from calr_cli.method.clusters import build_clustering
from calr_cli.method.inter import label_epoch, train_inter
from calr_cli.method.intra import train_intra
from calr_cli.method.labels import check_clusters
from calr_cli.prepare.prepared import load_dataset
from calr_cli.prepare.published import prepare_dataset
from calr_cli.runs.find import create_run
from calr_cli.runs.folder import RunFolder
from calr_cli.training import epoch
from calr_cli.training.checkpoint import load_model, load_state
from calr_cli.types import OUTLIER, Dataset
from tests.method.test_presets import SMALL
from tests.support.features import unit_features
from tests.support.heard import Heard
from tests.support.narrow import use_narrow
from tests.support.small import small_dataset

CPU = torch.device("cpu")
QUICK = [
    *SMALL,
    "precision=fp32",
    "data.height=32",
    "data.width=32",
    "data.workers=1",
    "evaluation.monitor_every=0",
    "intra.clustering.k1=5",
    "intra.clustering.k2=2",
    "inter.epochs=3",
    "inter.clustering.k1=5",
    "inter.clustering.k2=2",
    "inter.weights.start_epoch=1",
]


def plus(*assignments: str) -> Settings:
    return resolve_settings("market1501", None, [*QUICK, *assignments], recipe="plus").settings


def intra_in(run: RunFolder, dataset: Dataset, reporter: Reporter | None = None) -> RunFolder:
    train_intra(run.settings, dataset, run, CPU, reporter or SilentReporter())
    return run


def inter_in(
    run: RunFolder, dataset: Dataset, first: RunFolder, reporter: Reporter | None = None
) -> RunFolder:
    shutil.copyfile(first.model, run.start)  # as the commands do
    labels = read_local_labels(first.local_labels, dataset.train)
    train_inter(run.settings, dataset, labels, run, CPU, reporter or SilentReporter())
    return run


def both(dataset: Dataset, folder: Path, settings: Settings) -> tuple[RunFolder, RunFolder]:
    first = intra_in(create_run(settings, "intra", [CPU], folder / "intra"), dataset)
    return first, inter_in(create_run(settings, "inter", [CPU], folder / "inter"), dataset, first)


@dataclass(frozen=True)
class Whole:
    """Both stages, uninterrupted."""

    dataset: Dataset
    intra: RunFolder
    inter: RunFolder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALR_HOME", str(folder / "state"))
        dataset = small_dataset(folder / "data")
        yield Whole(dataset, *both(dataset, folder, plus()))


def files(run: RunFolder) -> set[str]:
    return {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}


def figures(run: RunFolder, *left_out: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in ("seconds", *left_out)} for row in run.read_metrics()]


def assert_same_model(a: Path, b: Path) -> None:
    first, second = load_model(a)[0].state_dict(), load_model(b)[0].state_dict()
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def assert_same(whole: Whole, first: RunFolder, second: RunFolder, *left_out: str) -> None:
    assert whole.intra.local_labels.read_bytes() == first.local_labels.read_bytes()
    assert_same_model(whole.intra.model, first.model)
    assert_same_model(whole.inter.model, second.model)
    for run, other in ((whole.intra, first), (whole.inter, second)):
        assert figures(run, *left_out) == figures(other, *left_out) != []


class Killed(SilentReporter):
    """Ends the training at iterations and after epochs, as unprepared as a kill would."""

    def __init__(self, iterations: int | None = None, rows: int | None = None) -> None:
        self.left, self.rows = iterations, rows

    @contextmanager
    def progress(self, title: str, total: int, unit: str = "", done: int = 0) -> Iterator[Any]:
        with super().progress(title, total, unit) as progress:
            yield self if unit == "iterations" else progress

    def advance(self, count: int = 1, **figures: float) -> None:
        if self.left is not None and count and figures:
            self.left -= 1
            if self.left == 0:
                raise ConnectionAbortedError

    def metric(self, row: EpochFigures) -> None:
        if self.rows is not None:
            self.rows -= 1
            if self.rows == 0:
                raise ConnectionAbortedError


def test_exactly_these_files_are_written(whole: Whole) -> None:
    common = {"config.yaml", "environment.json", "metrics.jsonl", "model.pth"}
    cameras = np.unique(whole.dataset.train.camids)
    assert files(whole.intra) == {*common, "local_labels.csv", *(f"cam{c}/metrics.jsonl" for c in cameras)}
    assert files(whole.inter) == {
        *common,
        "start.pth",
        "checkpoint.pth",
        "last.pth",
        "selected.pth",
        "selection.json",
    }
    rows = whole.intra.read_metrics()
    assert [(row["camera"], row["epoch"]) for row in rows] == [(c, e) for c in range(3) for e in range(2)]
    for row in rows:
        assert set(row) == {
            *("camera", "epoch", "images", "clusters", "batch", "silhouette", "loss", "seconds", "quality")
        }
        assert 1 < row["clusters"] <= row["images"] / 2
    card = load_model(whole.intra.model)[1]
    assert (card.stage, card.epoch) == ("intra", 2)
    state = load_state(whole.inter.state)
    average = {name.removeprefix("module."): value for name, value in state["networks"]["average"].items()}
    last = load_model(whole.inter.last)[0].state_dict()
    # The model is the average, not the network that is trained.
    assert all(torch.equal(value, average[name]) for name, value in last.items())
    assert not torch.equal(last["neck.weight"], state["networks"]["encoder"]["neck.weight"])


def test_identities_change_no_label_and_no_weight(whole: Whole, tmp_path: Path) -> None:
    train = whole.dataset.train
    shuffled = replace(train, pids=np.random.default_rng(0).permutation(train.pids))
    runs = both(replace(whole.dataset, train=shuffled), tmp_path, plus())
    assert_same(whole, *runs, "quality")
    assert figures(whole.inter) != figures(runs[1])


def test_names_of_files_change_nothing(whole: Whole, tmp_path: Path) -> None:
    source = whole.dataset.train.root
    renamed = tmp_path / "renamed" / "market1501" / source.name
    shutil.copytree(source, renamed)
    folder = renamed / "bounding_box_train"
    numbers = np.random.default_rng(1).permutation(1000)
    for number, path in zip(numbers, sorted(folder.iterdir()), strict=False):
        camera = path.name.split("_")[1]
        path.rename(folder / f"{number + 1:04d}_{camera}_{number:06d}_00.jpg")
    prepare_dataset("market1501", tmp_path / "renamed", SilentReporter())
    other = load_dataset("market1501")
    assert other.train.paths != whole.dataset.train.paths
    first, second = both(other, tmp_path, plus())
    assert np.array_equal(
        read_local_labels(whole.intra.local_labels, whole.dataset.train),
        read_local_labels(first.local_labels, other.train),
    )
    assert_same_model(whole.inter.model, second.model)


@pytest.mark.parametrize(
    ("intra", "inter"),
    [
        (Killed(iterations=4), Killed(iterations=2)),  # within the first epoch
        (Killed(iterations=9), Killed(iterations=4)),  # within the second
        (Killed(rows=2), Killed(rows=2)),  # between the rows of an epoch's cameras
    ],
    ids=["first epoch", "second epoch", "rows"],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, intra: Killed, inter: Killed
) -> None:
    if intra.left is not None:
        monkeypatch.setattr(epoch, "SAVE_SECONDS", 0)  # a save after every step
    first = create_run(plus(), "intra", [CPU], tmp_path / "intra")
    with pytest.raises(ConnectionAbortedError):
        intra_in(first, whole.dataset, intra)
    assert first.state.exists()
    assert not first.local_labels.exists()
    intra_in(first, whole.dataset)
    second = create_run(plus(), "inter", [CPU], tmp_path / "inter")
    with pytest.raises(ConnectionAbortedError):
        inter_in(second, whole.dataset, first, inter)
    if inter.left is not None:
        assert len(load_state(second.state)["under_way"]["rows"]["proxies"]) > 0
    monkeypatch.setattr(epoch, "SAVE_SECONDS", 600)
    inter_in(second, whole.dataset, first)
    assert_same(whole, first, second)
    assert files(first) == files(whole.intra)


def test_fewer_epochs_of_stage_1_than_are_done(whole: Whole, tmp_path: Path) -> None:
    run = create_run(plus(), "intra", [CPU], tmp_path / "intra")
    with pytest.raises(ConnectionAbortedError):
        intra_in(run, whole.dataset, Killed(rows=6))  # the last row of the second epoch
    run.write_settings(plus("intra.epochs=1"))
    intra_in(run, whole.dataset)
    assert run.local_labels.read_bytes() == whole.intra.local_labels.read_bytes()
    assert_same_model(run.model, whole.intra.model)


def test_proxies_that_are_wanted_on_the_way_begin_with_the_next_epoch(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch, "SAVE_SECONDS", 0)
    run = create_run(plus("inter.proxies.weight=0"), "inter", [CPU], tmp_path / "inter")
    with pytest.raises(ConnectionAbortedError):
        inter_in(run, whole.dataset, whole.intra, Killed(iterations=2))
    assert load_state(run.state)["under_way"]["rows"].keys() == {"memory"}
    run.write_settings(plus())
    inter_in(run, whole.dataset, whole.intra)
    assert len(run.read_metrics()) == 3


@pytest.mark.parametrize("counts", [(1, 2, 3, 4, 38), (48,)])
def test_cameras_of_few_images_and_one_camera(whole: Whole, tmp_path: Path, counts: tuple[int, ...]) -> None:
    camids = np.repeat(np.arange(len(counts)), counts)
    few = replace(whole.dataset, train=replace(whole.dataset.train, camids=camids))
    first, second = both(few, tmp_path, plus("intra.epochs=1", "inter.epochs=1"))
    labels = read_local_labels(first.local_labels, few.train)
    clusters = [len(np.unique(labels[camids == camid])) for camid in range(len(counts))]
    expected = {1: [1], 2: [1], 3: [1], 4: [2]}
    assert all(
        found in expected.get(count, range(2, 25)) for found, count in zip(clusters, counts, strict=True)
    )
    assert sum(clusters) == len(np.unique(labels))
    assert second.model.exists()


@pytest.mark.parametrize("kind", ["fewer than k", "one image many times", "one camera", "a camera each"])
def test_degenerate_features_have_labels(kind: str) -> None:
    features = unit_features(0, 5 if kind == "fewer than k" else 60)
    if kind == "one image many times":
        features[:] = features[0]
    count = len(features)
    camids = {"one camera": np.zeros(count, np.int64), "a camera each": np.arange(count)}
    settings = resolve_settings(None, None, recipe="plus").settings
    labels = label_epoch(
        settings, features, camids.get(kind, np.arange(count) % 3), np.arange(count), 0, CPU, SilentReporter()
    )
    for found in (labels.global_labels, labels.refined_labels):
        assert found.shape == (count,)
        assert set(found) - {OUTLIER} <= set(range(len(labels.pivots)))


def test_what_to_do_about_no_cluster_or_one_is_said_in_settings_that_count(whole: Whole) -> None:
    """The smallest similarity of a link is not given here."""
    camids, reporter = whole.dataset.train.camids, SilentReporter()
    settings = plus("inter.clustering.min_cluster_size=40")
    labels = label_epoch(settings, unit_features(0, 48), camids, np.arange(48), 0, CPU, reporter)
    assert (labels.global_labels == OUTLIER).all()
    clustering = build_clustering(settings, reporter)
    with pytest.raises(TrainingError, match=r"outliers: .* Lower inter\.clustering\.min_cluster_size$"):
        check_clusters(labels, clustering, reporter)
    one = replace(labels, global_labels=np.zeros(48, np.int64))
    with pytest.raises(
        TrainingError, match=r"one cluster .* Raise inter\.clustering\.max_outliers or lower "
    ):
        check_clusters(one, clustering, reporter)


def narrow_intra(*work: Any) -> Any:
    use_narrow(pytest.MonkeyPatch())  # in every process
    return processes._intra(*work)


@pytest.mark.distributed
def test_two_processes_train_together_and_speak_once(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_intra", narrow_intra)
    settings, heard = plus("intra.epochs=1"), Heard()
    run = create_run(settings, "intra", [CPU] * 2, tmp_path / "intra")
    summary = processes.run_intra(settings, whole.dataset, run, [CPU] * 2, heard)
    found, expected = figures(run), [row for row in figures(whole.intra) if row["epoch"] == 0]
    assert [row["clusters"] for row in found] == [row["clusters"] for row in expected]
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in expected], abs=1e-3)
    assert [step for step in heard.steps if "iterations" in step] == ["epoch 1/1: 6 iterations"]
    assert sum(row["clusters"] for row in summary["per_camera"]) == summary["clusters"]
    assert files(run) == files(whole.intra)
