"""What is told before anything is written: settings, datasets, devices, runs to continue."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from tests.cli.conftest import Calr

TRAINING = ("train-intra", "train-inter", "train")


@pytest.mark.parametrize("command", TRAINING)
def test_print_config_resolves_and_writes_nothing(calr: Calr, command: str, folder: Path) -> None:
    answer = calr(
        command, "-d", "VeRi776", "-a", "resnet18", "--set", "inter.memory.momentum=0.2", "--print-config"
    )
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert yaml.safe_load(answer.stdout)["inter"]["memory"]["momentum"] == 0.2
    lines = {line.strip() for line in answer.stdout.splitlines()}
    assert "dataset: veri  # -d/--dataset" in lines
    assert "arch: resnet18  # -a/--arch" in lines
    assert "height: 224  # preset veri" in lines
    assert list(folder.iterdir()) == []


def test_print_config_as_json(calr: Calr) -> None:
    answer = calr("train", "-d", "veri", "--print-config", "--json").json
    assert answer["settings"]["data"]["height"] == 224
    assert answer["origins"]["data.height"] == "preset veri"


@pytest.mark.parametrize(
    ("command", "stage", "other"), [("train-intra", "intra", "inter"), ("train-inter", "inter", "intra")]
)
def test_short_flags_are_of_the_commands_own_stage(calr: Calr, command: str, stage: str, other: str) -> None:
    flags = ["-b", "32", "--iters", "7", "--epochs", "3", "--num-instances", "2"]
    settings = calr(command, "-d", "veri", *flags, "--print-config", "--json").json["settings"]
    names = ("batch_size", "iters", "epochs", "num_instances")
    assert [settings[stage][name] for name in names] == [32, 7, 3, 2]
    untouched = calr("train", "-d", "veri", "--print-config", "--json").json["settings"]
    assert settings[other] == untouched[other]


def test_evaluate_takes_the_batch_size_for_extraction(calr: Calr) -> None:
    flags = ["-d", "veri", "--pretrained", "none", "-b", "8", "--print-config", "--json"]
    assert calr("evaluate", *flags).json["settings"]["evaluation"]["batch_size"] == 8


def test_a_config_file_names_its_dataset_by_an_alias_too(calr: Calr, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("data:\n  dataset: market\n  height: 64\n", encoding="utf-8")
    settings = calr("train", "--config", file, "--print-config", "--json").json["settings"]
    assert (settings["data"]["dataset"], settings["data"]["height"]) == ("market1501", 64)


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        (["-d", "marlet1501"], ["There is no dataset 'marlet1501'; the nearest is market1501. "]),
        (["-d", "veri", "-a", "resnet5O"], ["model.arch = resnet5O (-a/--arch) must be one of resnet18"]),
        (["-d", "veri", "-a", "resnet5O"], ["; did you mean resnet50?"]),
        (["-d", "veri", "--set", "inter.memory.temprature=1"], ["did you mean inter.memory.temperature?"]),
        (
            ["-d", "veri", "-b", "many"],
            ["inter.batch_size = many (-b/--batch-size) must be a whole number from 2"],
        ),
        (["-d", "veri", "--height", "4"], ["data.height = 4 (--height) must be a whole number from 32"]),
        (
            ["-d", "veri", "--seed", "x", "--set", "inter.clustering.k=1"],
            ["seed = x (--seed) must be", "inter.clustering.k = 1 (--set) must be"],
        ),
        (["-d", "veri", "--config", "absent.yaml"], ["--config absent.yaml: no such file"]),
    ],
)
def test_wrong_values_are_a_line_each_and_exit_1(
    calr: Calr, flags: list[str], lines: list[str], folder: Path
) -> None:
    answer = calr("train-inter", *flags)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert len(answer.errors) == len(lines) == len(answer.stderr.splitlines())
    assert all(sorted(line in error for error in answer.errors)[-1] for line in lines), answer.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("command", [*TRAINING, "evaluate"])
def test_no_dataset_lists_those_there_are(calr: Calr, command: str) -> None:
    answer = calr(command, "--pretrained", "none")
    assert answer.exit_code == 1
    assert answer.errors == [
        "error: which dataset? None was given. "
        "Give -d NAME; datasets: market1501, dukemtmcreid, msmt17, veri, synthetic"
    ]


def test_the_synthetic_dataset_may_be_asked_for(calr: Calr) -> None:
    assert calr("train", "-d", "synthetic", "--print-config").exit_code == 0


def test_a_dataset_that_is_not_prepared(calr: Calr, folder: Path) -> None:
    answer = calr("train-inter", "-d", "veri", "--pretrained", "none")
    assert answer.exit_code == 1
    assert answer.errors == ["error: veri is not prepared. Run `calr prepare-data --root DIR` first"]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("gpus", "line"),
    [
        ("a,b", "--gpus 'a,b' is not a list of different device numbers. Write for instance --gpus 0"),
        ("0,0", "--gpus '0,0' is not a list of different device numbers. Write for instance --gpus 0"),
        ("0,", "--gpus '0,' is not a list of different device numbers. Write for instance --gpus 0"),
    ],
)
def test_nonsense_gpus(calr: Calr, gpus: str, line: str) -> None:
    answer = calr("train-inter", "-d", "veri", "--gpus", gpus)
    assert (answer.exit_code, answer.errors) == (1, [f"error: {line}"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_gpus_without_cuda(calr: Calr) -> None:
    answer = calr("train-inter", "-d", "veri", "--gpus", "0,1,2,3")
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.errors == [
        "error: --gpus 0,1,2,3: no device 0, 1, 2, 3; there is no CUDA device here. "
        "Leave --gpus out to use the CPU"
    ]


def test_unknown_device(calr: Calr) -> None:
    answer = calr("train-inter", "-d", "veri", "--device", "tpu")
    assert answer.errors == ["error: --device 'tpu' is not known. Choose cpu or cuda"]


def test_weights_that_are_not_there_keep_training_from_starting(calr: Calr, veri: str, folder: Path) -> None:
    answer = calr("train-inter", "-d", veri, "--pretrained", "absent.pth")
    assert answer.exit_code == 1
    assert answer.errors == ["error: no weights file absent.pth. Give a path, 'imagenet', 'person' or 'none'"]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("command", TRAINING)
def test_an_output_that_exists(calr: Calr, veri: str, folder: Path, command: str) -> None:
    (folder / "mine").mkdir()
    answer = calr(command, "-d", veri, "--pretrained", "none", "--output", "mine")
    assert answer.exit_code == 1
    assert answer.errors == [
        "error: mine exists already. Choose another --output, or continue an interrupted run with --resume"
    ]
    assert list((folder / "mine").iterdir()) == []


@pytest.mark.parametrize("command", TRAINING)
def test_an_output_that_cannot_be_written(calr: Calr, veri: str, folder: Path, command: str) -> None:
    (folder / "file").touch()
    answer = calr(command, "-d", veri, "--pretrained", "none", "--output", "file/run")
    assert answer.exit_code == 1
    assert len(answer.errors) == 1
    assert answer.errors[0].startswith("error: cannot make the run folder file/run: Not a directory (in ")
    assert answer.errors[0].endswith("/file). Choose a writable --output")
    assert [path.name for path in folder.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("command", "flags", "line"),
    [
        (
            "train-inter",
            ["-d", "veri", "--output", "new"],
            "-d/--dataset, --output cannot be given beside it. Leave that out, or start a new run",
        ),
        (
            "train-inter",
            ["--epochs", "60", "-b", "8", "--gpus", "0"],
            "-b/--batch-size, --epochs would change its settings. "
            "To change them on purpose: --set inter.batch_size=8 --set inter.epochs=60",
        ),
        (
            "train-intra",
            ["--epochs", "60", "--deterministic"],
            "--deterministic, --epochs would change its settings. "
            "To change them on purpose: --set deterministic=true --set intra.epochs=60",
        ),
        (
            "train",
            ["--seeds", "3"],
            "--seeds cannot be given beside it. Leave that out, or start a new run",
        ),
    ],
)
def test_what_a_run_was_told_cannot_be_told_again(
    calr: Calr, command: str, flags: list[str], line: str
) -> None:
    answer = calr(command, "--resume", "runs/x", *flags)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.errors == [f"error: --resume continues a run as it was begun: {line}"]


@pytest.mark.parametrize("number", ["0", "-1"])
def test_no_seeds(calr: Calr, number: str) -> None:
    answer = calr("train", "-d", "veri", "--seeds", number)
    assert (answer.exit_code, answer.errors) == (1, [f"error: --seeds {number} must be from 1"])


def test_a_folder_that_is_not_of_train(calr: Calr, folder: Path) -> None:
    (folder / "x").mkdir()
    answer = calr("train", "--resume", "x", "--device", "cpu")
    assert answer.errors == [
        "error: x is not a folder of calr train: there is no x/inter/config.yaml. "
        "Give what was its --output, or a run folder to train-intra or train-inter"
    ]


def test_a_folder_that_is_no_run(calr: Calr, folder: Path) -> None:
    (folder / "x").mkdir()
    answer = calr("train-intra", "--resume", "x")
    assert answer.errors == [
        "error: x is not a run folder: it has no config.yaml. Give runs/DATASET/STAGE/NAME"
    ]


def test_local_labels_of_another_dataset(calr: Calr, veri: str, folder: Path) -> None:
    file = folder / "labels.csv"
    file.write_text("path,camid,local_label\n0001_c1s1_000001_00.jpg,0,0\n", encoding="utf-8")
    answer = calr("train-inter", "-d", veri, "--pretrained", "none", "--local-labels", file)
    assert answer.exit_code == 1
    assert "is of another dataset" in answer.errors[0]
    assert not (folder / "runs").exists()


def test_local_labels_without_refinement_contradict_each_other(calr: Calr, veri: str, folder: Path) -> None:
    flags = ["--set", "inter.refinement.enabled=false", "--local-labels", "labels.csv"]
    answer = calr("train-inter", "-d", veri, "--pretrained", "none", *flags)
    assert (answer.exit_code, len(answer.errors)) == (1, 1)
    assert "inter.refinement.enabled = false" in answer.errors[0]
    assert not (folder / "runs").exists()
