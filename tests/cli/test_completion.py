"""What a shell gets when Tab is pressed, asked in the way in which its script asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from calr_cli.config.schema import Settings
from calr_cli.data.manifest import dataset_folder
from calr_cli.runs.find import create_run
from tests.cli.conftest import Calr

ASK = """
import os, sys
from typer.testing import CliRunner
from calr_cli.cli.app import app
for line in sys.argv[1:]:
    words = line.split(" ")
    asked = {"_CALR_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    print(" ".join(CliRunner().invoke(app, [], env=asked, prog_name="calr").stdout.split()))
print([name for name in ("torch", "torchvision", "sklearn", "PIL") if name in sys.modules])
"""


def offered(*lines: str) -> list[list[str]]:
    """What bash is offered behind each line; one interpreter answers all, and torch is not among them."""
    done = subprocess.run([sys.executable, "-c", ASK, *lines], capture_output=True, text=True, check=True)
    *answers, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    return [answer.split() for answer in answers]


def test_bash(folder: Path) -> None:
    dataset_folder("shop").mkdir(parents=True)
    (dataset_folder("shop") / "manifest.csv").touch()
    run = create_run(Settings(), "inter", [torch.device("cpu")], None)
    run.model.touch()
    published = ["market1501", "dukemtmcreid", "msmt17", "veri", "synthetic"]
    expected = {
        "calr tra": ["train", "train-intra", "train-inter"],
        "calr labels s": ["score"],
        "calr train --no-such-": [],
        "calr search --thre": ["--threads", "--threshold"],
        "calr train -d ": ["shop", *published],
        "calr train -d sh": ["shop"],
        "calr embed --arch resnet1": ["resnet18", "resnet101", "resnet152"],
        "calr train-inter --pooling ": ["gem", "avg", "cls"],
        "calr presets show v": ["veri"],
        "calr presets show p": ["plus"],
        "calr report ": [str(run.path)],
        "calr train-inter --resume ": [str(run.path)],
        "calr evaluate --resume ": ["model.pth", str(run.model)],
        "calr search --resume runs/": [str(run.model)],
        "calr search --resume elsewhere/": [],  # bash goes on with files
    }
    answers = dict(zip(expected, offered(*expected), strict=True))
    assert {line: sorted(words) for line, words in answers.items()} == {
        line: sorted(words) for line, words in expected.items()
    }


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells(shell: str) -> None:
    told = {"_CALR_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "calr presets s"}
    action = {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    command = [sys.executable, "-m", "calr_cli"]
    done = subprocess.run(command, env=os.environ | told | action, capture_output=True, text=True, check=True)
    assert "show" in done.stdout
    assert "Show what a preset or a recipe sets." in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell(shell: str, calr: Calr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.completion._get_shell_name", lambda: shell)
    shown = calr("--show-completion")
    assert shown.exit_code == 0
    assert f"_CALR_COMPLETE=complete_{shell}" in shown.stdout


def test_only_the_help_of_calr_itself_names_it(calr: Calr) -> None:
    assert "--install-completion" in calr("--help").stdout
    assert "completion" not in calr("train", "--help").stdout
