"""What commands say to type next can be typed: every such line is taken as it is and run."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

from calr_cli.cli.next_steps import after_stage_1
from calr_cli.cli.request import Machine, Request
from calr_cli.config.schema import Settings
from calr_cli.models.encoder import Encoder
from calr_cli.runs.find import create_run
from calr_cli.runs.folder import RunFolder
from calr_cli.training.checkpoint import ModelCard, save_model
from tests.cli.conftest import Answer, Calr
from tests.cli.test_end_to_end import SMALL
from tests.support.made_up import write_image

pytestmark = pytest.mark.usefixtures("narrow")

NETWORK = ["-a", "resnet18", "--pretrained", "none", "--device", "cpu"]
SHORT = [*NETWORK, *SMALL, "--set", "inter.epochs=1", "--set", "inter.iters=2"]


def next_lines(answer: Answer) -> list[list[str]]:
    """The words of the commands at the end of stderr."""
    assert answer.exit_code == 0, answer.stderr
    lines = answer.stderr.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("next: "))
    assert all(line.startswith("      calr ") for line in lines[first + 1 :])
    return [shlex.split(line.removeprefix("next:")) for line in lines[first:]]


@pytest.fixture
def unlabelled(calr: Calr, tmp_path: Path) -> str:
    """An own dataset of which only the cameras are known, in a folder with a blank in its name."""
    for place in range(24):
        image = tmp_path / "my photos" / f"cam{place % 2}" / f"{place}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        write_image(image, place // 4, seed=place)
    images = ("--images", tmp_path / "my photos", "--name", "shop", "--pattern", r"cam(?P<camid>\d+)")
    prepared = calr("prepare-data", *images)
    assert next_lines(prepared) == [["calr", "train", "-d", "shop"]]
    return "shop"


@pytest.mark.e2e
def test_from_stage_1_to_a_search(calr: Calr, unlabelled: str, folder: Path) -> None:
    intra = calr("train-intra", "-d", unlabelled, *SHORT, "--output", "stage 1")
    ((_, *words),) = next_lines(intra)
    assert words[:3] == ["train-inter", "--config", "stage 1/config.yaml"]
    inter = calr(*words)
    (_, *report), (_, *search) = next_lines(inter)  # nothing to evaluate on
    assert (report[0], search[0]) == ("report", "search")
    assert calr(*search).stdout.startswith("query: ")
    assert calr(*report).exit_code == 0
    assert (Path(report[1]) / "report.html").is_file()


def test_stage_2_of_a_run_with_the_usual_settings_needs_only_the_dataset(folder: Path) -> None:
    run = RunFolder(Path("runs/veri/intra/20260131-120000"))
    run.path.mkdir(parents=True)
    run.local_labels.touch()
    usual, here = Request("veri"), Machine()
    on_two = ["train-inter", "-d", "veri", "--gpus", "0,1"]
    assert after_stage_1(run, "veri", usual, Machine(gpus="0,1")) == on_two
    run.model.touch()  # the network of a recipe
    plus = ["train-inter", "-d", "veri", "--recipe", "plus"]
    assert after_stage_1(run, "veri", Request("VeRi776", recipe="plus"), here) == plus
    elsewhere = RunFolder(Path("my run"))
    labels = ["--local-labels", "my run/local_labels.csv"]
    assert after_stage_1(elsewhere, "veri", usual, here) == ["train-inter", "-d", "veri", *labels]


@pytest.mark.parametrize(
    "asked",
    [
        Request("veri", flags={"intra.epochs": ("--epochs", "3")}),
        Request("veri", assignments=["intra.epochs=3"]),
        Request("veri", config=Path("own.yaml")),
        Request(),  # `--resume`
    ],
)
def test_stage_2_of_a_run_with_settings_of_its_own_takes_them_over(folder: Path, asked: Request) -> None:
    run = RunFolder(Path("runs/veri/intra/20260131-120000"))
    run.path.mkdir(parents=True)
    run.local_labels.touch()
    words = ["train-inter", "--config", str(run.config), "--device", "cpu"]
    assert after_stage_1(run, "veri", asked, Machine(device="cpu")) == words


def test_a_model_in_a_run(calr: Calr, veri: str, folder: Path) -> None:
    settings = Settings.model_validate({"data": {"dataset": veri}})
    run = create_run(settings, "inter", [torch.device("cpu")], Path("a run"))
    save_model(run.model, Encoder("resnet18", "avg"), ModelCard(veri, "inter", 1, "resnet18", "avg", 32, 32))
    words = ["evaluate", "--resume", str(run.model), "--device", "cpu"]
    (_, *report), (_, *search) = next_lines(calr(*words))
    assert report == ["report", "a run", "--device", "cpu"]
    assert calr(*search).exit_code == calr(*report).exit_code == 0
    assert search[search.index("--gallery") + 1].endswith("image_test")
    assert calr(*words, "--quiet").stderr == ""
    as_json = calr(*words, "--json")
    assert as_json.json["queries"] == 18
    assert next_lines(as_json)
    moved = run.model.rename("model.pth")
    assert [line[1] for line in next_lines(calr("evaluate", "--resume", moved, "--device", "cpu"))] == [
        "search"
    ]


@pytest.mark.e2e
def test_with_identities_stage_2_is_evaluated(calr: Calr, veri: str) -> None:
    trained = calr("train", "-d", veri, *SHORT, "--output", "both")
    (_, *evaluate), *others = next_lines(trained)
    assert evaluate == ["evaluate", "--resume", "both/inter/model.pth", "--device", "cpu"]
    assert [line[1] for line in others] == ["report", "search"]
    assert calr(*evaluate).stdout.split()[:2] == ["dataset", "mAP"]


@pytest.mark.e2e
def test_several_seeds_are_compared(calr: Calr, veri: str) -> None:
    trained = calr("train", "-d", veri, *SHORT, "--set", "inter.refinement.enabled=false", "--seeds", "2")
    (_, *report), (_, *search) = next_lines(trained)
    assert [Path(word).parent.name for word in report[1:3]] == ["seed1", "seed2"]
    assert "--resume" in search
