"""Training on a user's own images: the recipe and the settings that nobody asked for, and what says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from calr_cli.config.loading import flat_settings, measured
from calr_cli.config.wording import FOLLOWING
from calr_cli.method import processes
from calr_cli.runs.folder import RunFolder
from tests.cli.conftest import Calr
from tests.cli.test_train import SHORT, Trainer, done
from tests.docs.pages import REPOSITORY

NO_SIZE = [word for word in SHORT if word not in ("--height", "--width", "32")]


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    trainer = Trainer()
    monkeypatch.setattr(processes, "run_intra", trainer.intra)
    monkeypatch.setattr(processes, "run_inter", trainer.inter)
    return trainer


@pytest.fixture
def gate(calr: Calr, veri_root: Path) -> str:
    """The name of own images, of which identities and test set are unknown."""
    images = veri_root / "veri/VeRi/image_train"
    done(calr("prepare-data", "--images", images, "--name", "gate", "--pattern", r"_c(?P<camid>\d+)_"))
    return "gate"


def notes(stderr: str) -> list[str]:
    """What was said about recipe and settings."""
    begins = ("recipe: ", "settings that", "  data.", "  intra.", "  inter.")
    return [line for line in stderr.splitlines() if line.startswith(begins)]


def test_recipe_and_settings_are_told_and_kept(
    calr: Calr,
    gate: str,
    folder: Path,
    trainer: Trainer,
) -> None:
    words = ["train", "-d", gate, *NO_SIZE, "--set", "inter.batch_size=16"]
    answer = done(calr(*words, "--output", "x"))
    said = notes(answer.stderr)
    assert said[0] == "recipe: plus, the default for own images; --recipe calr: the published method"
    assert re.fullmatch(
        r"settings that follow the data, \d+ images of \d+ cameras, median .* pixels:", said[1]
    )
    assert said[2] == "  data.height 64, data.width 32: the shape of the images, at most twice their size"
    settings = RunFolder(folder / "x" / "inter").settings
    told = dict(re.findall(r"([a-z_.1]+\.[a-z_.1]+) (\d+)", "\n".join(said[2:])))
    assert told.keys() == FOLLOWING - {"inter.batch_size"}
    values = flat_settings(settings)
    assert {key: str(values[key]) for key in told} == told
    assert (settings.intra.network, settings.inter.start, settings.inter.average) == ("shared", "intra", 0.99)
    assert RunFolder(folder / "x" / "intra").settings == settings
    shown = calr(
        "train", "-d", gate, *NO_SIZE, "--set", "inter.batch_size=16", "--print-config", "--json"
    ).json
    assert shown["settings"] == settings.model_dump()
    assert shown["origins"]["inter.iters"].startswith("auto: ")


def test_quiet_is_quiet(calr: Calr, gate: str, trainer: Trainer) -> None:
    assert done(calr("train", "-d", gate, *SHORT, "--quiet")).stderr == ""


def test_the_published_method_when_it_is_asked_for_and_again_on_resume(
    calr: Calr,
    gate: str,
    folder: Path,
    trainer: Trainer,
) -> None:
    trainer.stop = ("inter 1 epochs 50", KeyboardInterrupt())
    stopped = calr("train", "-d", gate, *SHORT, "--recipe", "calr", "--output", "x")
    assert stopped.exit_code == 130
    assert notes(stopped.stderr)[0].startswith("settings that follow the data")
    before = RunFolder(folder / "x" / "inter").settings
    assert (before.intra.network, before.inter.start) == ("per-camera", "pretrained")
    resumed = done(calr("train", "--resume", "x", "--device", "cpu"))
    assert notes(resumed.stderr) == []
    assert RunFolder(folder / "x" / "inter").settings == before


def test_a_published_dataset_is_trained_as_published_and_plus_is_named(
    calr: Calr,
    veri: str,
    folder: Path,
    trainer: Trainer,
) -> None:
    answer = done(calr("train", "-d", veri, *SHORT, "--output", "x"))
    assert notes(answer.stderr) == [
        "recipe: calr, the published method; --recipe plus: 66.6 instead of 47.1 mAP on Market-1501 "
        "(375/175 split), MobileNetV2, 12 epochs (docs/results.md)"
    ]
    assert RunFolder(folder / "x" / "inter").settings.intra.network == "per-camera"
    for asked in ("plus", "calr"):
        assert notes(done(calr("train", "-d", veri, *SHORT, "--recipe", asked)).stderr) == []
    again = done(calr("train", "--config", "x/inter/config.yaml", "--device", "cpu"))
    assert notes(again.stderr) == []  # the file decides


def test_the_gain_that_is_told_is_the_one_that_was_measured() -> None:
    results = (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
    plus, published = re.findall(r"\d+\.\d", measured("plus"))
    assert re.search(
        rf"^\| Market-1501, 12 epochs \| {published} ± [\d.]+ \| {plus} ± ", results, re.MULTILINE
    )


def test_labels_without_a_network_are_used_as_they_are(
    calr: Calr,
    gate: str,
    folder: Path,
    trainer: Trainer,
) -> None:
    done(calr("train-intra", "-d", gate, *SHORT, "--recipe", "calr", "--output", "first"))
    done(calr("labels", "import", "first/local_labels.csv", "-d", gate, "--output", "labels.csv"))
    words = ["train-inter", "-d", gate, *SHORT, "--local-labels", "labels.csv"]
    done(calr(*words, "--output", "x"))
    settings = RunFolder(folder / "x").settings
    assert (settings.inter.start, settings.inter.clustering.method) == ("pretrained", "jaccard")
    assert not (folder / "x" / "start.pth").exists()
    for insist in (["--recipe", "plus"], ["--set", "inter.start=intra"]):
        asked = calr(*words, *insist)
        assert asked.errors[0].startswith("error: inter.start = intra: there is no network of stage 1 beside")


def test_stage_1_and_2_by_themselves_agree(calr: Calr, gate: str, trainer: Trainer) -> None:
    done(calr("train-intra", "-d", gate, *SHORT, "--output", "first"))
    done(calr("train-inter", "-d", gate, *SHORT, "--output", "second"))
    assert trainer.done == ["intra 1", "inter 1 epochs 50"]
    assert RunFolder(Path("second")).start.exists()


def test_evaluation_does_not_follow_the_images(calr: Calr, gate: str) -> None:
    answer = calr("evaluate", "-d", gate, "--pretrained", "none", "--print-config")
    assert "  height: 256  # default" in answer.stdout.splitlines()


@pytest.mark.parametrize("command", ["train", "train-intra", "train-inter"])
def test_a_cpu_without_the_weights_is_told_of_smaller_networks(
    calr: Calr, gate: str, folder: Path, command: str
) -> None:
    small = ["--height", "32", "--width", "32", "--set", "inter.iters=100"]
    answer = calr(command, "-d", gate, *small, "--device", "cpu")
    assert (answer.exit_code, len(answer.errors)) == (1, 1)
    assert answer.errors[0].startswith("error: no ImageNet weights of resnet50: ")
    line = answer.stderr.splitlines()[-1]
    time = r"(?:\d+ h )?\d+ (?:s|min)"
    assert re.fullmatch(
        rf"on this CPU both stages would take about {time} with resnet50; smaller networks take less: "
        rf"-a mobilenet_v2 {time}, -a resnet18 {time}\. Their weights: calr fetch-pretrained -a mobilenet_v2",
        line,
    )
    of_small = calr(command, "-d", gate, *small, "--device", "cpu", "-a", "resnet18")
    assert of_small.stderr.splitlines()[-1] == of_small.errors[0]
    assert not list(folder.iterdir())


def test_threads_go_into_the_next_commands(
    calr: Calr,
    gate: str,
    trainer: Trainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "to be put back")
    before = torch.get_num_threads()
    try:
        answer = done(calr("train", "-d", gate, *SHORT, "--threads", "3", "--output", "x"))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert "next: calr report x/inter --device cpu --threads 3\n" in answer.stderr
    wrong = calr("train", "-d", gate, "--threads", "0")
    assert (wrong.exit_code, wrong.errors) == (1, ["error: --threads 0 must be from 1"])
