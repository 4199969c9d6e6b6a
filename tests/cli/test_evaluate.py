"""Which model is measured on what; the measuring itself is tested in its own room."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from calr_cli.models.encoder import Encoder
from calr_cli.training.checkpoint import ModelCard, save_model
from tests.cli.conftest import Calr

CARD = ModelCard("veri", "inter", 1, "resnet18", "avg", 32, 32)


@pytest.fixture
def model(folder: Path) -> Path:
    save_model(folder / "runs/veri/inter/a/model.pth", Encoder("resnet18", "avg"), CARD)
    return Path("runs/veri/inter/a/model.pth")


def test_a_model_knows_its_dataset_size_and_network(calr: Calr, veri: str, model: Path) -> None:
    answer = calr("evaluate", "--resume", "model.pth", "--json", "--device", "cpu")
    assert answer.exit_code == 0
    assert f"model.pth is not here: taking {model}" in answer.stderr
    figures = answer.json
    assert (figures["model"], figures["dataset"], figures["queries"]) == (str(model), "veri", 18)
    table = calr("evaluate", "--resume", model, "--device", "cpu", "--quiet")
    assert table.stderr == ""
    head, row = (line.split() for line in table.stdout.splitlines())
    assert head == ["dataset", "mAP", "Rank-1", "Rank-5", "Rank-10", "queries", "gallery"]
    assert row == ["veri", *(f"{figures[key]:.1f}" for key in head[1:5]), "18", "18"]


def test_an_untrained_network(calr: Calr, veri: str) -> None:
    size = ["--height", "32", "--width", "32"]
    answer = calr(
        "evaluate", "-d", veri, "-a", "resnet18", "--pretrained", "none", *size, "--rerank", "--json"
    )
    assert answer.json["model"] == "resnet18 starts from random weights"
    assert answer.json["rerank"] is True


def test_a_model_of_another_network(calr: Calr, veri: str, model: Path) -> None:
    answer = calr("evaluate", "--resume", model, "-a", "resnet50", "--height", "64", "--width", "32")
    assert answer.exit_code == 1
    assert answer.errors == [
        f"error: {model} has arch resnet18, not resnet50",
        f"error: {model} has height 32, not 64. Leave these flags out: the model knows them",
    ]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "which model? Neither --resume nor --pretrained was given. "),
        (["--resume", "m.pth", "--pretrained", "none"], "--resume and --pretrained contradict each other. "),
        (["--resume", "no/m.pth"], "no file no/m.pth. Give the model.pth of a finished run"),
        (["--resume", "m.pth"], "no file m.pth here, nor in a finished run under runs/*/inter/*. "),
    ],
)
def test_no_model(calr: Calr, flags: list[str], line: str) -> None:
    answer = calr("evaluate", *flags)
    assert (answer.exit_code, answer.stdout, len(answer.errors)) == (1, "", 1)
    assert answer.errors[0].startswith(f"error: {line}")


def test_a_truncated_model(calr: Calr, model: Path) -> None:
    model.write_bytes(model.read_bytes()[:100_000])
    answer = calr("evaluate", "--resume", model)
    assert answer.errors == [f"error: {model} is not a torch file, or it is damaged or cut short"]


class Trap:
    """Unpickling it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> object:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_pickle_is_never_executed(calr: Calr, folder: Path, writer: str) -> None:
    trace, file = folder / "executed", folder / "trap.pth"
    if writer == "pickle":
        file.write_bytes(pickle.dumps(Trap(trace)))
    else:
        torch.save({"format": "calr 1", "card": Trap(trace)}, file)
    answer = calr("evaluate", "--resume", file)
    assert (answer.exit_code, len(answer.errors)) == (1, 1)
    assert "nothing in it was executed" in answer.errors[0]
    assert not trace.exists()


def test_a_state_dict_of_others(calr: Calr, folder: Path) -> None:
    torch.save({"state_dict": {"x": torch.zeros(1)}}, folder / "theirs.pth")
    answer = calr("evaluate", "--resume", "theirs.pth")
    assert answer.errors == [
        "error: theirs.pth is not a model written by calr. Give the model.pth of a finished run"
    ]
