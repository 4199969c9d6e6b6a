"""No command overwrites what it reads, and each says before its work what it cannot write."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from calr_cli.cli.console import print_json
from calr_cli.evaluation.calibration import Calibration, Reliability
from calr_cli.models.encoder import Encoder
from calr_cli.training.checkpoint import ModelCard, save_model
from calr_cli.use import evaluating
from calr_cli.use.embedding import Embedder
from tests.cli.conftest import Calr
from tests.support.made_up import write_image
from tests.support.read_only import read_only_root

CARD = ModelCard("veri", "inter", 1, "resnet18", "avg", 32, 32)
EMBED = ("embed", "--resume", "m.pth")
SEARCH = ("search", "--resume", "m.pth", "--gallery", "photos")


@pytest.fixture(autouse=True)
def photos(folder: Path) -> None:
    """Model ``m.pth``, and three images in ``photos``, listed in ``list.csv`` with their shops."""
    torch.manual_seed(0)
    save_model(folder / "m.pth", Encoder("resnet18", "avg"), CARD)
    (folder / "photos").mkdir()
    for n in range(3):
        write_image(folder / "photos" / f"{n}.png", n)
    (folder / "list.csv").write_text("path,shop\nphotos/0.png,x\nphotos/1.png,y\n")


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("it was begun")

    monkeypatch.setattr(Embedder, "rows_of", work)


def contents() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            [*SEARCH, "--html", "photos/0.png", "photos/1.png"],
            "--html photos/0.png: the name must end in .html",
        ),
        ([*SEARCH, "--html", "m.pth", "photos/1.png"], "--html m.pth is what the command reads (m.pth)"),
        ([*SEARCH, "--html", "photos", "photos/1.png"], "--html photos is a folder. Give the name of a file"),
        (
            [*SEARCH, "--html", "m.pth/p.html", "photos/1.png"],
            "--html m.pth/p.html cannot be written: Not a d",
        ),
        (
            [*SEARCH, "--html", "link.html", "photos/1.png"],
            "--html link.html is what the command reads (m.pth)",
        ),
        (
            [*EMBED, "list.csv", "--output", "list.csv"],
            "--output list.csv is what the command reads (list.csv)",
        ),
        (
            [*EMBED, "list.csv", "--output", "hard.csv"],
            "--output hard.csv is what the command reads (list.csv)",
        ),
        (
            [*EMBED, "photos", "--output", "list.csv"],
            "--output list.csv is there, and it is no file of features",
        ),
        (
            [*EMBED, "photos", "--output", "m.pth"],
            "--output m.pth is what the command reads (m.pth)",
        ),
        (
            [*EMBED, "photos", "--output", "list.csv/f.npz"],
            "--output list.csv/f.npz cannot be written: Not a d",
        ),
        ([*EMBED, "photos", "--output", "/proc/f.npz"], "--output /proc/f.npz cannot be written: "),
        (["export", "--resume", "m.onnx", "--images", "photos"], "--output m.onnx is what the command reads"),
        (
            ["export", "--resume", "m.pth", "--output", "/proc/e.onnx"],
            "--output /proc/e.onnx cannot be written",
        ),
        (["labels", "import", "list.csv", "-d", "veri", "--output", "m.pth"], "m.pth exists already"),
        (
            ["labels", "import", "list.csv", "-d", "veri", "--output", "n.png"],
            "--output n.png: the name must end",
        ),
    ],
)
def test_nothing_is_lost(calr: Calr, words: list[str], line: str) -> None:
    Path("link.html").symlink_to("m.pth")
    os.link("list.csv", "hard.csv")
    Path("m.onnx").write_bytes(Path("m.pth").read_bytes())
    before = contents()
    answer = calr(*words)
    assert (answer.exit_code, answer.stdout, len(answer.errors)) == (1, "", 1)
    assert answer.errors[0].startswith(f"error: {line}")
    assert contents() == before


@pytest.mark.parametrize("command", ["train", "train-intra", "train-inter", "demo"])
def test_a_folder_for_runs_that_cannot_be_made(calr: Calr, command: str) -> None:
    dataset = [] if command == "demo" else ["-d", "synthetic"]
    settings = ["--set", "model.pretrained=none"]
    for output in ("m.pth/run", "/proc/run"):
        answer = calr(command, *dataset, *settings, "--output", output, "--device", "cpu")
        assert (answer.exit_code, len(answer.errors)) == (1, 1)
        assert answer.errors[0].startswith(f"error: cannot make the run folder {output}: ")
    Path("dangling").symlink_to("nowhere")
    assert "dangling exists already" in calr(command, *dataset, *settings, "--output", "dangling").stderr


def test_what_is_there_is_replaced_if_it_is_of_the_same_kind(calr: Calr) -> None:
    for words in ([*EMBED, "photos", "--output", "f.csv"], [*SEARCH, "photos/0.png", "--html", "p.html"]):
        first = calr(*words)
        Path(words[-1]).chmod(0o600)
        assert (first.exit_code, calr(*words).exit_code) == (0, 0)


def test_a_link_and_a_device(calr: Calr) -> None:
    Path("far").mkdir()
    Path("p.html").symlink_to("far/page.html")
    answer = calr(*SEARCH, "photos/0.png", "--html", "p.html")
    assert answer.exit_code == 0
    assert Path("p.html").is_symlink()
    assert Path("far/page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert calr(*SEARCH, "photos/0.png", "--html", os.devnull).exit_code == 0
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_a_disk_that_is_full_in_the_end_loses_no_answer(calr: Calr) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    answer = calr(*SEARCH, "photos/0.png", "--html", "/dev/full", "--json")
    assert answer.exit_code == 1
    assert answer.errors == ["error: /dev/full: No space left on device"]
    assert len(json.loads(answer.stdout)["queries"][0]["results"]) == 3


@pytest.mark.parametrize(
    "words", [EMBED, ("compare", *EMBED[1:]), SEARCH, ("export", *EMBED[1:])], ids=lambda w: w[0]
)
def test_a_model_that_is_none(calr: Calr, words: tuple[str, ...]) -> None:
    """One NaN in a convolution: told by the tensor, before anything is embedded."""
    encoder = Encoder("resnet18", "avg")
    with torch.no_grad():
        encoder.backbone.get_parameter("layer1.0.conv1.weight")[0, 0, 0, 0] = float("nan")
    save_model(Path("m.pth"), encoder, CARD)
    more = {"embed": ["photos", "--output", "f.npz"], "export": ["--images", "photos"]}
    rest = more.get(words[0], ["photos/0.png"] * (2 if words[0] == "compare" else 1))
    answer = calr(*words, *rest)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.errors == [
        "error: m.pth: 1 of the 36,864 numbers of backbone.layer1.0.conv1.weight are not finite. Its "
        "training went wrong, or the file is damaged: take another model, or train again"
    ]
    assert not list(Path().glob("f.*"))


def test_evaluate_a_model_that_is_none(calr: Calr, veri: str) -> None:
    encoder = Encoder("resnet18", "avg")
    encoder.neck.running_var.fill_(float("inf"))
    save_model(Path("m.pth"), encoder, CARD)
    answer = calr("evaluate", "--resume", "m.pth", "-d", veri, "--json")
    assert answer.errors[0].startswith(
        "error: m.pth: 512 of the 512 numbers of neck.running_var are not finite"
    )


def test_a_model_that_cannot_keep_its_calibration(calr: Calr, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told before the evaluation, which takes minutes."""

    def work(*_: object, **__: object) -> None:
        raise AssertionError("it was begun")

    monkeypatch.setattr(evaluating, "run_evaluation", work)
    with read_only_root(lambda root: save_model(root / "m.pth", Encoder("resnet18", "avg"), CARD)) as (
        root,
        home,
    ):
        monkeypatch.setenv("CALR_HOME", str(home))
        answer = calr("evaluate", "--resume", root / "m.pth", "-d", "synthetic", "--calibrate")
    assert answer.errors == [f"error: {root}/m.pth: Permission denied (in {root})"]


def test_weights_that_are_finite_and_features_that_are_not(calr: Calr) -> None:
    encoder = Encoder("resnet18", "avg")
    with torch.no_grad():
        encoder.neck.weight.fill_(3e38)  # overflows in the product
    save_model(Path("m.pth"), encoder, CARD)
    (line,) = calr(*EMBED, "photos", "--output", "f.npz").errors
    assert line.startswith("error: the model gives no feature of unit length for photos/0.png and 2 more")


def test_a_variance_that_is_negative(calr: Calr) -> None:
    encoder = Encoder("resnet18", "avg")
    encoder.neck.running_var[3] = -1
    save_model(Path("m.pth"), encoder, CARD)
    for words in ([*EMBED, "photos", "--output", "f.npz"], [*SEARCH, "photos/0.png"]):
        (line,) = calr(*words).errors
        assert line.startswith("error: m.pth: neck.running_var has negative numbers, and a variance has none")


def test_a_calibration_that_is_none(calr: Calr) -> None:
    nan = Calibration(float("nan"), 0.0, "identities", "veri", 1, 1, 1.0, Reliability((0.5,), (0.5,), (1.0,)))
    save_model(Path("m.pth"), Encoder("resnet18", "avg"), replace(CARD, calibration=nan.to_dict()))
    (line,) = calr("compare", "--resume", "m.pth", "photos/0.png", "photos/1.png").errors
    assert line == "error: m.pth has a calibration of another version of calr. Calibrate it again"


def test_json_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = [float("nan"), -np.inf, 1.5, np.float64("nan")]
    print_json({"a": numbers, "b": {"c": tuple(numbers)}, "path": Path("x")})
    told = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert told == {"a": [None, None, 1.5, None], "b": {"c": [None, None, 1.5, None]}, "path": "x"}
