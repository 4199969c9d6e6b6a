"""``--recipe``, and stage 2 that starts from the network of stage 1; the training itself is left out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from calr_cli.method import processes
from calr_cli.runs.find import newest_local_labels
from calr_cli.runs.folder import RunFolder
from calr_cli.training.checkpoint import load_model, save_model
from calr_cli.use import evaluating
from tests.cli.conftest import Calr
from tests.cli.test_train import SHORT, Trainer

pytestmark = pytest.mark.usefixtures("narrow")

PLUS = ["--recipe", "plus", *SHORT]
START_ONLY = ["--set", "inter.start=intra", *SHORT]


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    trainer = Trainer()
    monkeypatch.setattr(processes, "run_intra", trainer.intra)
    monkeypatch.setattr(processes, "run_inter", trainer.inter)
    monkeypatch.setattr(evaluating, "run_evaluation", trainer.evaluation)
    return trainer


@pytest.mark.parametrize("command", ["train", "train-intra", "train-inter"])
def test_every_training_command_knows_recipes(calr: Calr, folder: Path, command: str) -> None:
    answer = calr(command, "-d", "veri", "--recipe", "plus", "--print-config")
    assert "  network: shared  # recipe plus" in answer.stdout.splitlines()
    wrong = calr(command, "-d", "veri", "--recipe", "pluss")
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert wrong.errors == ["error: no recipe 'pluss' among calr, plus; did you mean plus?"]
    again = calr(command, "--resume", "runs/x", "--recipe", "plus")
    assert again.errors == [
        "error: --resume continues a run as it was begun: --recipe cannot be given beside it. "
        "Leave that out, or start a new run"
    ]
    assert not list(folder.iterdir())


def test_both_stages_and_the_network_between_them(
    calr: Calr, veri: str, folder: Path, trainer: Trainer
) -> None:
    assert calr("train", "-d", veri, *PLUS, "--output", "x").exit_code == 0
    assert trainer.done == ["intra 1", "inter 1 epochs 50"]
    intra, inter = RunFolder(folder / "x" / "intra"), RunFolder(folder / "x" / "inter")
    assert inter.start.read_bytes() == intra.model.read_bytes()


def test_several_seeds_start_from_networks_of_their_own(calr: Calr, veri: str, trainer: Trainer) -> None:
    trainer.stop = ("inter 2 epochs 50", KeyboardInterrupt())
    assert calr("train", "-d", veri, *PLUS, "--seeds", 2, "--output", "x").exit_code == 130
    assert calr("train", "--resume", "x", "--device", "cpu").exit_code == 0
    assert [what.split()[:2] for what in trainer.done] == [
        [stage, seed] for seed in ("1", "2") for stage in ("intra", "inter", "evaluation")
    ]
    runs = [RunFolder(Path("x") / f"seed{seed}" / "inter") for seed in (1, 2)]
    assert runs[0].start.read_bytes() != runs[1].start.read_bytes()


def test_stage_2_by_itself_takes_the_newest_stage_1_that_has_a_network(
    calr: Calr, veri: str, trainer: Trainer
) -> None:
    first = calr("train-intra", "-d", veri, *PLUS)
    labels = newest_local_labels(veri, with_model=True)
    assert labels is not None
    assert f"next: calr train-inter --config {labels.parent}/config.yaml " in first.stderr
    assert calr("train-intra", "-d", veri, *SHORT).exit_code == 0  # newer, a network for each camera
    assert newest_local_labels(veri, with_model=False) != labels
    answer = calr("train-inter", "-d", veri, *PLUS, "--output", "x")
    assert answer.exit_code == 0
    assert f"local labels: {labels} (the newest of {veri})" in answer.stderr
    assert RunFolder(Path("x")).start.read_bytes() == RunFolder(labels.parent).model.read_bytes()


def test_stage_2_makes_stage_1_where_no_network_is(calr: Calr, veri: str, trainer: Trainer) -> None:
    assert calr("train-intra", "-d", veri, *SHORT).exit_code == 0
    answer = calr("train-inter", "-d", veri, *PLUS, "--output", "x")
    assert f"no local labels with a network of {veri} yet: running stage 1 first" in answer.stderr
    assert trainer.done == ["intra 1", "intra 1", "inter 1 epochs 50"]


def test_labels_without_a_network_beside_them(calr: Calr, veri: str, folder: Path, trainer: Trainer) -> None:
    assert calr("train-intra", "-d", veri, *SHORT, "--output", "first").exit_code == 0
    answer = calr("train-inter", "-d", veri, *PLUS, "--local-labels", "first/local_labels.csv")
    assert answer.errors == [
        "error: inter.start = intra: there is no network of stage 1 beside first/local_labels.csv. Make both "
        "with intra.network = shared (--recipe plus), or --set inter.start=pretrained"
    ]
    without = ["--set", "inter.start=pretrained", "--output", "x"]
    answer = calr("train-inter", "-d", veri, *PLUS, "--local-labels", "first/local_labels.csv", *without)
    assert answer.exit_code == 0
    assert trainer.done[-1] == "inter 1 epochs 50"
    assert not (folder / "x" / "start.pth").exists()


def test_a_network_of_another_kind_or_stage(calr: Calr, veri: str, folder: Path, trainer: Trainer) -> None:
    assert calr("train-intra", "-d", veri, *PLUS, "--output", "first").exit_code == 0
    labels = ["--local-labels", "first/local_labels.csv", "--output", "x"]
    other = ["mobilenet_v2" if word == "resnet18" else word for word in PLUS]
    answer = calr("train-inter", "-d", veri, *other, *labels, "--pooling", "avg")
    assert answer.errors == [
        "error: first/model.pth is a resnet18 with gem pooling, not a mobilenet_v2 with avg. "
        "Give -a resnet18 --pooling gem, or run stage 1 again"
    ]
    # A run of stage 2 has a copy of the labels too, but its model is not what they were made with.
    (folder / "second").mkdir()
    shutil.copyfile("first/local_labels.csv", "second/local_labels.csv")
    network, card = load_model(Path("first/model.pth"))
    save_model(Path("second/model.pth"), network, replace(card, stage="inter"))
    answer = calr("train-inter", "-d", veri, *PLUS, "--local-labels", "second/local_labels.csv")
    assert answer.errors == [
        "error: inter.start = intra: second/model.pth is a model of stage 2. "
        "Give --local-labels of the run of stage 1"
    ]
    assert not (folder / "x").exists()


@pytest.mark.parametrize("command", ["train", "train-inter"])
def test_a_stage_1_that_gives_no_network_is_not_begun(
    calr: Calr, veri: str, folder: Path, trainer: Trainer, command: str
) -> None:
    answer = calr(command, "-d", veri, *START_ONLY)
    assert (answer.exit_code, trainer.done) == (1, [])
    assert answer.errors == [
        "error: inter.start = intra: with intra.network = per-camera stage 1 gives no network to start from. "
        "Give --set intra.network=shared (or --recipe plus), or --set inter.start=pretrained"
    ]
    assert not list(folder.iterdir())


def test_labels_that_are_not_refined_by_may_come_with_a_network(
    calr: Calr, veri: str, trainer: Trainer
) -> None:
    off = ["--set", "inter.refinement.enabled=false"]
    assert calr("train-intra", "-d", veri, *PLUS, "--output", "first").exit_code == 0
    labels = ["--local-labels", "first/local_labels.csv", "--output", "x"]
    assert calr("train-inter", "-d", veri, *PLUS, *off, *labels).exit_code == 0
    assert RunFolder(Path("x")).start.exists()
