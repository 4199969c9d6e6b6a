"""Which model is measured on what; the measuring itself is tested in its own room."""

from __future__ import annotations

import errno
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from calr_cli.cli.evaluate import warn_of_unmatched
from calr_cli.config.schema import Settings
from calr_cli.evaluation.calibration import Calibration
from calr_cli.models.encoder import Encoder
from calr_cli.runs.find import create_run
from calr_cli.runs.folder import RunFolder
from calr_cli.training.checkpoint import ModelCard, load_model, save_model
from calr_cli.use import evaluating
from tests.cli.conftest import Calr
from tests.support.foreign import Network, cap, spcl
from tests.support.heard import Heard
from tests.support.made_up import make_layout, write_image

pytestmark = pytest.mark.usefixtures("narrow")

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


@pytest.fixture
def run(veri: str) -> RunFolder:
    """A finished run of the prepared dataset."""
    settings = Settings.model_validate({"data": {"dataset": veri}})
    run = create_run(settings, "inter", [torch.device("cpu")], Path("run"))
    save_model(run.model, Encoder("resnet18", "avg"), CARD)
    return run


def test_a_run_keeps_the_figures_of_its_model(calr: Calr, run: RunFolder, veri_root: Path) -> None:
    make_layout("market1501", veri_root)
    assert calr("prepare-data", "--root", veri_root, "--quiet").exit_code == 0
    evaluated = ("evaluate", "--resume", run.model, "--json", "--device", "cpu")
    for others in (["--rerank"], ["-d", "market1501"]):  # what is not of the run's own test
        assert calr(*evaluated, *others).exit_code == 0
        assert not run.evaluation.exists()
    figures = calr(*evaluated).json
    del figures["model"]
    assert json.loads(run.evaluation.read_text()) == figures
    assert calr("runs", ".", "--json").json["runs"][0]["mAP"] == figures["mAP"]


def test_how_far_the_model_follows_cameras_and_without(calr: Calr, run: RunFolder) -> None:
    evaluated = ("evaluate", "--resume", run.model, "--device", "cpu")
    answer = calr(*evaluated, "--per-camera", "--json")
    assert answer.json["per_camera"] is True
    assert not run.evaluation.exists(), "not what the run's model gives by itself"
    bias = answer.json["cameras"]
    assert bias["same_camera_by_chance"] == pytest.approx(2 / 5, abs=0.1)
    shown = calr(*evaluated, "--per-camera")
    assert shown.stdout.splitlines()[1].startswith("veri, per camera")
    share = (
        f"cameras: {100 * bias['same_camera']:.0f} % of nearest neighbours are of the same camera (by chance"
    )
    assert share in shown.stderr
    assert calr(*evaluated, "--per-camera", "--calibrate").errors == [
        "error: --calibrate and --per-camera contradict each other: probabilities are of features as they "
        "are. Give one of them"
    ]


def test_a_run_that_cannot_be_written_is_evaluated_all_the_same(
    calr: Calr, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: RunFolder, figures: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "run/.evaluation.json.x")

    monkeypatch.setattr(RunFolder, "write_evaluation", refuse)
    answer = calr("evaluate", "--resume", run.model, "--json", "--device", "cpu")
    assert answer.json["mAP"] > 0
    line = "the figures are not kept in run/evaluation.json: Permission denied"
    assert line in answer.stderr.splitlines()


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
        f"error: {model} has height 32, not 64. Leave that out: the model knows it",
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


SIZE = ["--height", "64", "--width", "32"]


@pytest.fixture
def theirs(folder: Path) -> Path:
    """A model of SpCL or ClusterContrast, with GeM."""
    torch.save(spcl(Network("resnet18")).content, folder / "theirs.pth.tar")
    return Path("theirs.pth.tar")


def test_a_model_of_another_program(calr: Calr, veri: str, theirs: Path) -> None:
    """Its network is recognised; its dataset and size, which it does not say, are the user's."""
    answer = calr("evaluate", "--resume", theirs, "-d", veri, *SIZE, "--json")
    assert answer.exit_code == 0
    (line,) = (line for line in answer.stderr.splitlines() if "by the names of" in line)
    assert line == (
        f"{theirs} is resnet18 by the names of SpCL/ClusterContrast/CALR, GeM with p = 2.5, batch norm neck; "
        "not used: classifier (1), domain_classifier (2); the file says: epoch 50, best_mAP 0.831; input "
        "64 x 32 (--height, --width), which the file does not say"
    )
    assert answer.json["model"] == str(theirs)


@pytest.mark.parametrize("option", ["--resume", "--pretrained"])
@pytest.mark.parametrize(
    "override", [["--pooling", "avg"], ["--set", "model.pooling=avg"], ["--config", "theirs.yaml"]]
)
def test_what_was_recognised_can_be_overridden(
    calr: Calr, folder: Path, theirs: Path, option: str, override: list[str]
) -> None:
    (folder / "theirs.yaml").write_text("model: {pooling: avg}\n", encoding="utf-8")
    shown = calr("evaluate", option, theirs, "-d", "veri", *override, "--print-config", "--json").json
    assert (shown["settings"]["model"]["arch"], shown["origins"]["model.arch"]) == ("resnet18", str(theirs))
    assert shown["settings"]["model"]["pooling"] == "avg"
    assert shown["origins"]["model.pooling"].startswith(override[0])


@pytest.mark.parametrize("option", ["--resume", "--pretrained"])
def test_another_architecture_than_the_file_has(calr: Calr, veri: str, theirs: Path, option: str) -> None:
    answer = calr("evaluate", option, theirs, "-d", veri, "-a", "resnet34", "--device", "cpu")
    assert (answer.exit_code, len(answer.errors)) == (1, 1)
    assert answer.errors[0].startswith(f"error: {theirs} does not fit resnet34: missing keys (80): base.4.2.")
    assert answer.errors[0].endswith(". It looks like resnet18: give -a resnet18, or another file")


@pytest.mark.parametrize("option", ["--resume", "--pretrained"])
def test_a_foreign_file_does_not_know_its_dataset(calr: Calr, theirs: Path, option: str) -> None:
    answer = calr("evaluate", option, theirs)
    assert answer.errors[0].startswith("error: which dataset? None was given. Give -d NAME; ")


@pytest.mark.parametrize(
    ("option", "said", "layer"),
    [
        ("--resume", "; computed as there: no ReLU after the first batch norm", torch.nn.Identity),
        ("--pretrained", "; not computed as there: no ReLU after the first batch norm", torch.nn.ReLU),
    ],
)
def test_a_network_that_computes_otherwise(
    calr: Calr, folder: Path, veri: str, option: str, said: str, layer: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a model CAP's network has no first ReLU; as a start of training it is calr's, which has one."""

    layers, extract = list[type](), evaluating.extract_test_set

    def watched(settings: Settings, encoder: Encoder, *rest: Any) -> Any:
        layers.append(type(encoder.backbone.relu))
        return extract(settings, encoder, *rest)

    monkeypatch.setattr(evaluating, "extract_test_set", watched)
    torch.save(cap(Network("resnet18")).content, folder / "cap.pth")
    answer = calr("evaluate", option, "cap.pth", "-d", veri, "--json", "--device", "cpu")
    assert said in answer.stderr
    assert (answer.exit_code, layers) == (0, [layer])


@pytest.mark.parametrize("option", ["--resume", "--pretrained"])
def test_what_is_not_recognised(calr: Calr, folder: Path, option: str) -> None:
    torch.save({"state_dict": {"x": torch.zeros(1)}}, folder / "theirs.pth")
    answer = calr("evaluate", option, "theirs.pth", "-d", "veri")
    (line,) = answer.errors
    assert line.startswith("error: theirs.pth is no network that calr recognises; its keys: x. Known are ")


def test_calibration_is_kept_in_the_model(calr: Calr, veri: str, model: Path) -> None:
    before = calr("evaluate", "--resume", model, "--json").json
    answer = calr("evaluate", "--resume", model, "--calibrate", "--json")
    assert answer.exit_code == 0
    figures = answer.json
    calibration = Calibration.from_dict(figures.pop("calibration"))
    assert figures == before
    assert (calibration.source, calibration.dataset, calibration.same_pairs) == ("identities", "veri", 36)
    _, card = load_model(model)
    assert Calibration.from_dict(card.calibration or {}) == calibration
    assert replace(card, calibration=None) == CARD
    shown = calr("evaluate", "--resume", model, "--calibrate").stdout.split("\n\n")
    assert shown[0].split()[:2] == ["dataset", "mAP"]
    assert f"{calibration.similarity_at(0.5):.3f} at even odds" in shown[1]
    assert f"expected calibration error  {calibration.reliability.error:.3f}" in shown[1]
    assert shown[2].splitlines()[0].split() == ["predicted", "%", "observed", "%", "of", "the", "pairs", "%"]


def test_calibration_without_identities_says_so(calr: Calr, folder: Path, model: Path) -> None:
    """Clusters of the training images stand in; there are no metrics then."""
    for pid in range(8):
        for n in range(6):
            image = folder / "street" / f"cam{n % 3}" / f"{pid}-{n}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            write_image(image, pid, seed=n)
    calr("prepare-data", "--images", "street", "--pattern", "cam(?P<camid>[0-9])", "--quiet")
    clusters = ["--set", "inter.clustering.k=4", "--set", "inter.clustering.min_similarity=0.9"]
    answer = calr("evaluate", "--resume", model, "-d", "street", "--calibrate", "--json", *clusters)
    assert answer.exit_code == 0, answer.stderr
    assert answer.json.keys() == {"model", "dataset", "calibration"}
    assert answer.json["calibration"]["source"] == "clusters"
    compared = calr("compare", "--resume", model, "street/cam0/0-0.png", "street/cam1/0-1.png")
    assert "label-free, from clusters of street (surer of itself than it should be)" in compared.stderr


def test_calibration_needs_a_model_to_keep_it(calr: Calr, veri: str, theirs: Path) -> None:
    answer = calr("evaluate", "--pretrained", "none", "-d", veri, "--calibrate")
    assert answer.errors[0].startswith("error: --calibrate is for a trained model")
    content = theirs.read_bytes()
    answer = calr("evaluate", "--resume", theirs, "-d", veri, "--calibrate")
    assert answer.errors == [
        f"error: {theirs} was written by another program: calr keeps no calibration in it. "
        "Leave --calibrate out: search and compare give similarities"
    ]
    assert theirs.read_bytes() == content


@pytest.mark.parametrize(("counted", "lines"), [(2, 1), (8, 0)])
def test_queries_that_nothing_answers_are_told(counted: int, lines: int) -> None:
    heard = Heard()
    warn_of_unmatched({"queries": counted}, 8, heard)
    assert len(heard.warnings) == lines
    if lines:
        assert heard.warnings[0].startswith(
            "6 of 8 queries do not count: no gallery image is of their identity"
        )
