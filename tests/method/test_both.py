"""What stage 1 hands over to stage 2: in a run of both, in the demonstration, from another run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from calr_cli.config.schema import Settings
from calr_cli.data.local_labels import read_local_labels, write_local_labels
from calr_cli.errors import ConfigError, DataError
from calr_cli.events import SilentReporter
from calr_cli.method.both import Pair, find_local_labels, hand_over, train_both
from calr_cli.method.demo import run_demo, without_camera_awareness
from calr_cli.runs.find import create_run
from calr_cli.runs.folder import RunFolder
from calr_cli.types import Dataset
from tests.support.small import small_dataset, small_settings

CPU = torch.device("cpu")

HANDS_A_NETWORK_OVER = {
    "intra": {"network": "shared", "epochs": 1, "clustering": {"k1": 5, "k2": 2}},
    "inter": {"start": "intra", "epochs": 1},
}


class Heard(SilentReporter):
    """Keeps headings and notes."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []

    def stage(self, title: str) -> None:
        self.stages.append(title)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Runs without a folder of their own go below the current one."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return small_dataset(tmp_path / "data")


def new_pair(settings: Settings, folder: Path) -> Pair:
    runs = {stage: create_run(settings, stage, [CPU], folder / stage) for stage in ("inter", "intra")}
    return Pair(**runs)


def labels_file(dataset: Dataset, path: Path) -> Path:
    write_local_labels(path, dataset.train, np.arange(len(dataset.train)) // 2)
    return path


def refusal(settings: Settings, dataset: Dataset, given: Path, begun: RunFolder | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        find_local_labels(settings, dataset.train, begun, given, SilentReporter())
    return caught.value.lines()[0]


def test_stage_2_gets_labels_and_network_and_nothing_is_done_twice(dataset: Dataset) -> None:
    pair, heard = new_pair(small_settings(**HANDS_A_NETWORK_OVER), Path("x")), Heard()
    summaries = train_both(pair, dataset, [CPU], heard)
    assert list(summaries) == ["intra", "inter"]
    assert [summary["run"] for summary in summaries.values()] == ["x/intra", "x/inter"]
    intra, inter = pair.intra, pair.inter
    assert intra is not None
    assert inter.local_labels.read_bytes() == intra.local_labels.read_bytes()
    assert inter.start.read_bytes() == intra.model.read_bytes()
    assert heard.stages == [
        "stage 1, intra-camera: market1501 -> x/intra",
        "stage 2, inter-camera: market1501 -> x/inter",
    ]
    again = Heard()
    assert train_both(pair, dataset, [CPU], again) == {}
    assert again.notes == ["finished before: x/intra/local_labels.csv", "finished before: x/inter/model.pth"]


def test_each_stage_has_the_settings_of_its_own_run(dataset: Dataset) -> None:
    """A resumed run may have been changed on purpose, and its other stage not."""
    pair = new_pair(small_settings(intra={"epochs": 1}), Path("x"))
    pair.inter.write_settings(small_settings(inter={"epochs": 2}))
    assert train_both(pair, dataset, [CPU], SilentReporter())["inter"]["epochs"] == 2
    assert pair.intra is not None
    assert {row["epoch"] for row in pair.intra.read_metrics()} == {0}


def test_labels_alone_are_handed_over_where_stage_2_starts_anew(dataset: Dataset) -> None:
    file = labels_file(dataset, Path("labels.csv"))
    run = create_run(small_settings(), "inter", [CPU], Path("run"))
    labels = hand_over(Pair(run, given=file), dataset.train)
    assert labels is not None
    assert labels.tolist() == read_local_labels(run.local_labels, dataset.train).tolist()
    assert not run.start.exists()


def test_a_run_that_goes_on_keeps_what_it_was_given(dataset: Dataset) -> None:
    run = create_run(small_settings(inter={"start": "intra"}), "inter", [CPU], Path("run"))
    labels_file(dataset, run.local_labels)
    run.start.write_bytes(b"a network")
    assert hand_over(Pair(run, given=run.local_labels), dataset.train) is not None  # no model.pth is needed
    assert run.start.read_bytes() == b"a network"


def test_nothing_is_handed_over_where_nothing_is_used(dataset: Dataset) -> None:
    settings = small_settings(inter={"refinement": {"enabled": False}})
    run = create_run(settings, "inter", [CPU], Path("run"))
    assert hand_over(Pair(run), dataset.train) is None
    assert not run.local_labels.exists()
    assert find_local_labels(settings, dataset.train, None, None, SilentReporter()) is None


def test_given_labels_go_before_the_newest(dataset: Dataset) -> None:
    settings, heard = small_settings(), Heard()
    assert find_local_labels(settings, dataset.train, None, None, heard) is None
    newest = labels_file(dataset, create_run(settings, "intra", [CPU], None).local_labels)
    assert find_local_labels(settings, dataset.train, None, None, heard) == newest
    given = labels_file(dataset, Path("mine.csv"))
    assert find_local_labels(settings, dataset.train, None, given, heard) == given
    assert heard.notes == [
        "no local labels of market1501 yet: running stage 1 first",
        f"local labels: {newest} (the newest of market1501)",
    ]


def test_a_run_with_labels_of_its_own_takes_no_others(dataset: Dataset) -> None:
    settings = small_settings()
    run = create_run(settings, "inter", [CPU], Path("run"))
    labels_file(dataset, create_run(settings, "intra", [CPU], None).local_labels)  # the newest
    given = labels_file(dataset, Path("mine.csv"))
    assert find_local_labels(settings, dataset.train, run, given, SilentReporter()) == given  # none yet
    labels_file(dataset, run.local_labels)
    assert find_local_labels(settings, dataset.train, run, None, SilentReporter()) == run.local_labels
    assert refusal(settings, dataset, given, run) == (
        "run was begun with local labels of its own, run/local_labels.csv. Leave --local-labels out"
    )
    without = small_settings(inter={"refinement": {"enabled": False}})
    assert refusal(without, dataset, given) == (
        "--local-labels is of no use with inter.refinement.enabled = false. Leave one of them out"
    )


def test_labels_of_other_images_are_refused(dataset: Dataset) -> None:
    file = labels_file(dataset, Path("labels.csv"))
    other = replace(dataset.train, paths=tuple(f"other/{place}.jpg" for place in range(len(dataset.train))))
    with pytest.raises(DataError, match=r"^labels\.csv is of another dataset"):
        find_local_labels(small_settings(), other, None, file, SilentReporter())


def test_the_demonstration_hands_the_network_of_plus_over_too(dataset: Dataset) -> None:
    once = small_settings(intra={"epochs": 1}, inter={"epochs": 1})
    plus = small_settings(**HANDS_A_NETWORK_OVER)
    result = run_demo(once, plus, CPU, Path("demo"), SilentReporter())
    models = ["global clustering", "CALR", "recipe plus"]
    assert [row["model"] for row in result["rows"]] == ["untrained", *models]
    folders = [Path("demo") / name / "inter" for name in ("baseline", "calr", "plus")]
    assert result["runs"] == dict(zip(models, map(str, folders), strict=True))
    baseline, calr, best = map(RunFolder, folders)
    assert best.start.read_bytes() == RunFolder(Path("demo/plus/intra")).model.read_bytes()
    assert best.settings == plus
    for run in (baseline, calr):
        assert run.settings.inter.start == "pretrained"
        assert not run.start.exists()
    assert not Path("demo/baseline/intra").exists()


def test_a_demonstration_without_a_network_to_start_from_is_not_begun(dataset: Dataset) -> None:
    without, with_one = small_settings(inter={"start": "intra"}), small_settings()
    for settings in ((without, with_one), (with_one, without)):
        with pytest.raises(
            ConfigError, match=r"^inter\.start = intra: with intra\.network = per-camera stage"
        ):
            run_demo(*settings, CPU, Path("demo"), SilentReporter())
    assert not Path("demo").exists()


def test_the_baseline_knows_no_cameras() -> None:
    settings = small_settings(
        inter={"start": "intra", "clustering": {"standardise": True}, "proxies": {"weight": 0.5}}
    )
    plain = without_camera_awareness(settings).inter
    assert not plain.uses_stage_1
    assert not plain.clustering.standardise
    assert not plain.camera.enabled
    assert (plain.weights.mode, plain.proxies.weight) == ("off", 0)
    assert plain.optimiser == settings.inter.optimiser


def test_the_network_is_the_one_beside_the_labels(dataset: Dataset) -> None:
    """Of several runs of stage 1 that whose labels are taken, and not the newest."""
    settings = small_settings(inter={"start": "intra"})
    runs = [create_run(settings, "intra", [CPU], None) for _ in range(2)]
    for run, network in zip(runs, (b"taken", b"newer"), strict=True):
        labels_file(dataset, run.local_labels)
        run.model.write_bytes(network)
    inter = create_run(settings, "inter", [CPU], None)
    hand_over(Pair(inter, given=runs[0].local_labels), dataset.train)
    assert inter.start.read_bytes() == b"taken"
