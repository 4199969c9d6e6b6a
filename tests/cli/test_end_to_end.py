"""Whole commands on a made-up VeRi folder, from images to metrics."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from calr_cli.data.local_labels import read_local_labels
from calr_cli.data.prepared import load_dataset
from tests.cli.conftest import Calr

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SHORT = ["--pretrained", "none", "-a", "resnet18"]
SMALL = [
    *["--height", "32", "--width", "32"],
    *["--set", "intra.batch_size=8", "--set", "intra.iters=2", "--set", "intra.epochs=1"],
    *["--set", "inter.batch_size=16", "--set", "inter.num_instances=4", "--set", "inter.clustering.k=5"],
]
THREE_LINES = [*SHORT, "--epochs", "1", "--iters", "2", *SMALL]


def test_the_three_lines(calr: Calr, veri_root: Path, folder: Path) -> None:
    assert calr("prepare-data", "--root", veri_root).exit_code == 0

    trained = calr("train-inter", "-d", "veri", *THREE_LINES)
    assert trained.exit_code == 0
    assert "no local labels of veri yet: running stage 1 first" in trained.stderr.splitlines()
    assert not any(ord(letter) < 32 and letter != "\n" for letter in trained.stderr + trained.stdout)
    (intra,), (inter,) = (list(folder.glob(f"runs/veri/{stage}/*")) for stage in ("intra", "inter"))
    stage1, stage2 = (path.relative_to(folder) for path in (intra, inter))
    assert trained.stdout.split()[-4:] == ["run", str(stage2), "model", str(stage2 / "model.pth")]
    assert trained.stderr.splitlines()[-1] == f"next: calr evaluate --resume {stage2}/model.pth"
    assert {path.name for path in inter.iterdir()} == {
        *("config.yaml", "environment.json", "metrics.jsonl", "local_labels.csv"),
        *("checkpoint.pth", "last.pth", "model.pth"),
    }
    images = load_dataset("veri").train
    labels = [read_local_labels(run / "local_labels.csv", images) for run in (intra, inter)]
    assert labels[0].tolist() == labels[1].tolist()

    evaluated = calr("evaluate", "--resume", "model.pth", "--json")
    assert evaluated.exit_code == 0
    assert f"model.pth is not here: taking {stage2}/model.pth" in evaluated.stderr
    assert (evaluated.json["dataset"], evaluated.json["queries"]) == ("veri", 18)

    # A second run takes the labels that are there, and can be told which.
    again = calr("train-inter", "-d", "veri", *THREE_LINES, "--json", "--output", "again")
    assert f"local labels: {stage1}/local_labels.csv (the newest of veri)" in again.stderr
    assert again.json["run"] == "again"
    assert "intra" not in again.json


def test_both_stages_in_one_folder(calr: Calr, veri: str, folder: Path) -> None:
    few = ["--set", "inter.iters=2", "--set", "inter.epochs=1"]
    answer = calr("train", "-d", veri, *SHORT, *SMALL, *few, "--output", "both", "--json", "--quiet")
    assert answer.exit_code == 0
    assert answer.json["intra"]["local_labels"] == "both/intra/local_labels.csv"
    assert answer.json["inter"]["model"] == "both/inter/model.pth"
    assert [path.name for path in folder.iterdir()] == ["both"]
    resumed = calr("train-inter", "--resume", "both/inter")
    assert resumed.errors == ["error: the run in both/inter is finished: there is nothing to resume"]
    other = calr("train-intra", "--resume", "both/inter")
    assert other.errors == ["error: both/inter is a run of train-inter, not of train-intra"]


def test_stage_2_without_refinement_needs_no_stage_1(calr: Calr, veri: str, folder: Path) -> None:
    answer = calr("train-inter", "-d", veri, *THREE_LINES, "--set", "inter.refinement.enabled=false")
    assert answer.exit_code == 0
    assert not (folder / "runs/veri/intra").exists()


def test_both_stages_without_refinement_are_one(calr: Calr, veri: str, folder: Path) -> None:
    few = ["--set", "inter.iters=2", "--set", "inter.epochs=1", "--set", "inter.refinement.enabled=false"]
    answer = calr("train", "-d", veri, *SHORT, *SMALL, *few, "--output", "both", "--json")
    assert list(answer.json) == ["inter"]
    assert not (folder / "both/intra").exists()
    assert "nothing uses local labels, stage 1 is left out" in answer.stderr


def test_own_images_without_identities_train_and_cannot_be_evaluated(
    calr: Calr, veri_root: Path, folder: Path
) -> None:
    images = veri_root / "veri/VeRi/image_train"
    flags = ["--images", images, "--name", "gate", "--pattern", r"_c(?P<camid>\d+)_"]
    assert calr("prepare-data", *flags).exit_code == 0
    trained = calr("train-inter", "-d", "gate", *THREE_LINES, "--output", "run")
    assert trained.exit_code == 0
    answer = calr("evaluate", "--resume", "run/model.pth")
    assert answer.exit_code == 1
    assert "gate has 0 query and 0 gallery images" in answer.errors[0]


def interrupted(command: list[str], folder: Path, when: str) -> str:
    """The resume line of a command that got Ctrl-C as soon as a file ``when`` had content."""
    # Where tests run in the background, the signal is ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [sys.executable, "-m", "calr_cli", *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while process.poll() is None and not any(path.stat().st_size for path in folder.glob(when)):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=250)
    assert (process.returncode, stdout) == (130, ""), stderr
    said, resume = stderr.splitlines()[-2:]
    assert said == "interrupted"
    assert "Traceback" not in stderr
    return resume.removeprefix("resume with: ")


def finish(line: str, folder: Path) -> str:
    """Type the line into a shell; what it said."""
    calr = f'calr() {{ {shlex.quote(sys.executable)} -m calr_cli "$@"; }}\n'
    done = subprocess.run(["sh", "-c", calr + line], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_ctrl_c_in_stage_1_on_the_way_to_stage_2(calr: Calr, veri: str, folder: Path) -> None:
    few = ["--set", "intra.epochs=4", "--set", "inter.iters=2", "--set", "inter.epochs=1"]
    command = ["train", "-d", veri, *SHORT, *SMALL, *few, "--output", "both", "--device", "cpu"]
    line = interrupted(command, folder, "both/intra/metrics.jsonl")
    assert line == (
        "calr train-intra --resume both/intra --device cpu && calr train-inter --resume both/inter "
        "--local-labels both/intra/local_labels.csv --device cpu"
    )
    finish(line, folder)
    rows = [json.loads(row) for row in (folder / "both/intra/metrics.jsonl").read_text().splitlines()]
    assert [(row["camera"], row["epoch"]) for row in rows] == [(c, e) for c in range(3) for e in range(4)]
    assert (folder / "both/inter/model.pth").exists()


def test_ctrl_c_in_stage_2(calr: Calr, veri: str, folder: Path) -> None:
    assert calr("train-intra", "-d", veri, *SHORT, *SMALL, "--output", "labels").exit_code == 0
    flags = ["--iters", "2", "--epochs", "12", "--local-labels", "labels/local_labels.csv", "--output", "run"]
    line = interrupted(["train-inter", "-d", veri, *SHORT, *SMALL, *flags], folder, "run/metrics.jsonl")
    assert line == "calr train-inter --resume run"
    (folder / "labels/local_labels.csv").unlink()  # the run has its own copy
    assert "resuming run after epoch" in finish(line, folder)
    rows = [json.loads(row) for row in (folder / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(12))


@pytest.mark.gpu
def test_the_three_lines_on_a_gpu(calr: Calr, veri_root: Path) -> None:
    assert calr("prepare-data", "--root", veri_root).exit_code == 0
    answer = calr("train-inter", "-d", "veri", "--gpus", "0,1,2,3")  # as it stands in the README
    assert answer.exit_code == 1
    count = torch.cuda.device_count()
    assert ("one device at a time for now" if count > 3 else "CUDA devices here: 0") in answer.errors[0]
    assert calr("train-inter", "-d", "veri", "--gpus", "0", *THREE_LINES).exit_code == 0
    assert calr("evaluate", "--resume", "model.pth", "--gpus", "0").exit_code == 0
