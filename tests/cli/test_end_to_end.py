"""Whole commands on a made-up VeRi folder, from images to metrics."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from calr_cli.data.local_labels import read_local_labels
from calr_cli.prepare.prepared import load_dataset
from calr_cli.training.checkpoint import load_model
from tests.cli.conftest import Calr

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

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
    assert f"next: calr evaluate --resume {stage2}/model.pth" in trained.stderr.splitlines()
    assert {path.name for path in inter.iterdir()} == {
        *("config.yaml", "environment.json", "metrics.jsonl", "local_labels.csv"),
        *("checkpoint.pth", "last.pth", "selected.pth", "model.pth", "selection.json"),
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
    assert resumed.errors == [
        "error: the run in both/inter is finished: there is nothing to resume. "
        "To train it for longer: --set inter.epochs=N"
    ]
    other = calr("train-intra", "--resume", "both/inter")
    assert other.errors == ["error: both/inter is a run of train-inter, not of train-intra"]


def test_a_finished_run_is_trained_for_longer(calr: Calr, veri: str, folder: Path) -> None:
    assert calr("train-inter", "-d", veri, *THREE_LINES, "--output", "run").exit_code == 0
    longer = calr("train-inter", "--resume", "run", "--set", "inter.epochs=3", "--json")
    assert longer.exit_code == 0, longer.stderr
    assert "changed on purpose: inter.epochs 1 -> 3" in longer.stderr
    assert longer.json["epochs"] == 3
    rows = [json.loads(row) for row in (folder / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2]


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
    line = interrupted(command, folder, "both/intra/cam*/metrics.jsonl")
    assert line == "calr train --resume both --device cpu"
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
    assert "resuming run after " in finish(line, folder)
    rows = [json.loads(row) for row in (folder / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(12))


def test_ctrl_c_in_two_processes(calr: Calr, veri: str, folder: Path) -> None:
    two = ["--device", "cpu", "--processes", "2"]
    assert calr("train-intra", "-d", veri, *SHORT, *SMALL, "--output", "labels").exit_code == 0
    flags = ["--iters", "4", "--epochs", "6", "--local-labels", "labels/local_labels.csv", "--output", "run"]
    line = interrupted(["train-inter", "-d", veri, *SHORT, *SMALL, *flags, *two], folder, "run/metrics.jsonl")
    assert line == "calr train-inter --resume run --device cpu --processes 2"
    assert "resuming run after" in finish(line, folder)
    rows = [json.loads(row) for row in (folder / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(6))


def program(*words: str) -> subprocess.CompletedProcess[str]:
    """A command in processes of its own."""
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)


def test_both_stages_and_evaluation_in_two_processes(calr: Calr, veri: str, folder: Path) -> None:
    two = ["--device", "cpu", "--processes", "2", "--json"]
    few = ["--set", "inter.iters=2", "--set", "inter.epochs=1"]
    flags = [*few, *two, "--output", "both", "--tensorboard"]
    trained = calr("train", "-d", veri, *SHORT, *SMALL, *flags)
    assert trained.exit_code == 0, trained.stderr
    summary = trained.json
    assert [row["camera"] for row in summary["intra"]["per_camera"]] == [0, 1, 2]
    assert summary["inter"]["model"] == "both/inter/model.pth"
    environment = json.loads((folder / "both/inter/environment.json").read_text())
    assert (environment["processes"], len(environment["devices"])) == (2, 2)
    for part in ("inter", *(f"intra/cam{camid}" for camid in range(3))):
        (file,) = (folder / "both" / part / "tensorboard").glob("events.*")  # of one process
        assert [event.step for event in EventFileLoader(str(file)).Load()] == [0, 0, 1]
    assert len((folder / "both/inter/tensorboard/features.tsv").read_text().splitlines()) == 72
    measured = calr("evaluate", "--resume", "both/inter/model.pth", *two)
    assert measured.exit_code == 0, measured.stderr
    alone = calr("evaluate", "--resume", "both/inter/model.pth", "--device", "cpu", "--json")
    figures = measured.json
    assert figures["queries"] == alone.json["queries"] == 18
    assert figures["mAP"] == pytest.approx(alone.json["mAP"])


def test_torchrun_starts_the_processes(veri: str, folder: Path) -> None:
    few = ["--set", "inter.iters=2", "--set", "inter.epochs=1"]
    train = ["train", "-d", veri, *SHORT, *SMALL, *few, "--output", "both", "--json"]
    resume = ["train-inter", "--resume", "both/inter", "--set", "inter.epochs=2", "--json"]
    evaluate = ["evaluate", "--resume", "both/inter/model.pth", "--json"]
    words = json.dumps([train, resume, evaluate, train])
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = program(*torchrun, "-m", "tests.support.commands", words)
    results = done.stdout.splitlines()
    assert len(results) == 3, done.stderr  # each once
    trained, resumed, measured = map(json.loads, results)
    assert trained["inter"]["model"] == "both/inter/model.pth"
    assert resumed["epochs"] == 2
    assert measured["queries"] == 18
    assert [path.name for path in folder.iterdir()] == ["both"]
    assert done.stderr.count("next: calr evaluate") == 2  # after train and train-inter
    # What the first process finds wrong is said once, and nobody waits for it.
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if "error: " in line]
    assert [line for line in said if "both exists already" in line] == [said[0]]


def test_two_machines_share_nothing_but_the_network(
    veri: str, veri_root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["train", "-d", veri, *SHORT, *SMALL, "--set", "inter.iters=2", "--set", "inter.epochs=1"]
    here = program("calr_cli", *words, "--device", "cpu", "--processes", "2", "--output", "here")
    assert here.returncode == 0, here.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--master-addr", "127.0.0.1", "--master-port", port]
    machines = [folder / name for name in ("first", "second")]
    agents = []
    for node, machine in enumerate(machines):
        machine.mkdir()
        state = {**os.environ, "CALR_HOME": str(machine / "state"), "CALR_DATA": str(veri_root)}
        line = [*torchrun, "--node-rank", str(node), "-m", "calr_cli", *words, "--output", "run"]
        pipe, out = subprocess.PIPE, subprocess.STDOUT
        agents.append(subprocess.Popen(line, cwd=machine, env=state, stdout=pipe, stderr=out, text=True))
    said = [agent.communicate(timeout=500)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], "\n".join(said)
    assert [text.count("next: calr evaluate --resume run/inter/model.pth") for text in said] == [1, 0]
    # The run is on the first; the second has nothing but the cameras that it trained in stage 1.
    assert {path.name for path in machines[1].glob("run/*/*")} == {"cam0", "cam1", "cam2"} - {
        path.name for path in machines[0].glob("run/intra/cam*")
    }
    ours, expected = (load_model(run / "inter/last.pth")[0] for run in (machines[0] / "run", folder / "here"))
    for key, value in ours.state_dict().items():
        assert torch.equal(value, expected.state_dict()[key]), key


@pytest.mark.gpu
def test_the_three_lines_on_gpus(calr: Calr, veri_root: Path) -> None:
    assert calr("prepare-data", "--root", veri_root).exit_code == 0
    here = ",".join(map(str, range(torch.cuda.device_count())))
    trained = program("calr_cli", "train-inter", "-d", "veri", "--gpus", here, *THREE_LINES)
    assert trained.returncode == 0, trained.stderr
    assert program("calr_cli", "evaluate", "--resume", "model.pth", "--gpus", here).returncode == 0


@pytest.mark.gpu
def test_deterministic_on_a_gpu(calr: Calr, veri: str) -> None:
    for name in ("a", "b"):
        flags = ["--deterministic", "--device", "cuda", "--output", name]
        assert calr("train-inter", "-d", veri, *THREE_LINES, *flags).exit_code == 0
    first, second = (torch.load(f"{name}/last.pth", weights_only=True)["state_dict"] for name in ("a", "b"))
    assert all(torch.equal(first[key], second[key]) for key in first)
