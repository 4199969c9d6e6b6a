"""``export`` as its users type it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch

from calr_cli import __version__
from calr_cli.evaluation.calibration import Calibration, Reliability
from calr_cli.models.encoder import Encoder
from calr_cli.training.checkpoint import ModelCard, save_model
from calr_cli.use import exporting
from tests.cli.conftest import Calr
from tests.support.foreign import Network, spcl
from tests.support.made_up import write_image

CARD = ModelCard("veri", "inter", 1, "resnet18", "gem", 32, 32)
CALIBRATION = Calibration(
    50.0, -30.0, "identities", "veri", 100, 1000, 2.0, Reliability((0.5,), (0.5,), (1.0,))
)
COLUMNS = ["file", "MB", "opset", "input", "dimensions", "largest", "difference"]


@pytest.fixture(autouse=True)
def photos(folder: Path) -> None:
    """Model ``m.pth``, and two images and a file that is none in ``photos``."""
    torch.manual_seed(0)
    save_model(folder / "m.pth", Encoder("resnet18"), replace(CARD, calibration=CALIBRATION.to_dict()))
    (folder / "photos").mkdir()
    for identity in range(2):
        write_image(folder / "photos" / f"{identity}.png", identity)
    (folder / "photos/bad.jpg").write_bytes(b"no image")


def metadata(file: str) -> dict[str, str]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found: dict[str, str] = session.get_modelmeta().custom_metadata_map
    return found


def test_on_images_of_ones_own(calr: Calr) -> None:
    """Two images are taken twice: several sizes of batches have to be compared."""
    result = calr(
        "export", "--resume", "m.pth", "--images", "photos", "--output", "out/e.onnx", "--json"
    ).json
    assert result.pop("largest_difference") < 1e-5
    assert result == {
        "output": "out/e.onnx",
        "bytes": Path("out/e.onnx").stat().st_size,
        "opset": 18,
        "height": 32,
        "width": 32,
        "dim": 512,
        "images": 2,
        "images_from": "--images",
        "batch_sizes": [1, 2],
    }
    assert metadata("out/e.onnx") == {
        "calr_version": __version__,
        "arch": "resnet18",
        "pooling": "gem",
        "dataset": "veri",
        "opset": "18",
        "height": "32",
        "width": "32",
        "resize": "Pillow's BICUBIC (antialiased) to width x height, whatever the image's proportions",
        "mean": "[0.485, 0.456, 0.406]",
        "std": "[0.229, 0.224, 0.225]",
        "input": "images: (N, 32, 32, 3) uint8 RGB; mean and std are taken out inside",
        "output": "features: (N, 512) float32",
        "feature_dim": "512",
        "similarity": "inner product of unit rows",
        "threshold": "0.6",
        "calibration_slope": "50.0",
        "calibration_intercept": "-30.0",
        "calibration": "from identities of veri",
    }


def test_for_a_tracker(calr: Calr) -> None:
    """It says what to type there, with the threshold of this model as the tracker counts it."""
    export = ("export", "--resume", "m.pth", "--images", "photos", "--output", "t.onnx")
    for name, threshold in (("boxmot", "0.40 (BoT-SORT)"), ("ultralytics", "0.80")):
        result = calr(*export, "--for", name, "--json").json
        assert result["for"] == name
        assert result["largest_difference"] < 1e-5
        assert 0.5 < result["resize_cosine"]["lowest"] <= result["resize_cosine"]["mean"] <= 1.0001
        assert any(str(Path("t.onnx").absolute()) in line for line in result["there"])
        assert result["there"][-1] == f"appearance_thresh: {threshold}, where this model is at even odds"
    about = metadata("t.onnx")
    assert about["for"] == "ultralytics"
    assert about["input"] == "images: (N, 3, 32, 32) float32, RGB from 0 to 1"
    answer = calr(*export, "--for", "deepstream")
    assert "  inferDims: [3, 32, 32]" in answer.stderr.splitlines()
    assert "  reidFeatureSize: 512" in answer.stderr.splitlines()


def test_on_images_of_its_dataset(calr: Calr, veri: str) -> None:
    answer = calr("export", "--resume", "m.pth")
    head, row = (line.split() for line in answer.stdout.splitlines())
    assert head == COLUMNS
    assert row[0] == "m.onnx"
    assert row[2:7] == ["18", "32", "x", "32", "512"]
    assert float(row[7]) < 1e-5
    count = 18  # queries of the made-up dataset
    sizes = f"in batches of 1, 2, {count - 3}"
    assert f"compared with PyTorch in float32 on {count} images ({veri}, query), {sizes}" in answer.stderr


def test_without_the_images_of_its_dataset(calr: Calr) -> None:
    """Where a model is used there is nothing to prepare: whatever is missing, images are asked for."""
    save_model(Path("own.pth"), Encoder("resnet18"), replace(CARD, dataset="shop"))
    export = ("export", "--resume", "own.pth", "--quiet")
    begins, ends = "error: no images to compare on: ", ". Give photographs of your own: --images DIR"
    (line,) = calr(*export).errors
    assert line == f"{begins}There is no dataset 'shop'{ends}"
    Path("photos/bad.jpg").unlink()
    assert calr("prepare-data", "--images", "photos", "--name", "shop").exit_code == 0
    assert calr(*export, "--json").json["images_from"] == "shop, train"
    for image in Path("photos").iterdir():
        image.unlink()
    (line,) = calr(*export).errors
    assert line.startswith(begins)
    assert line.endswith(ends)
    Path("photos").rmdir()
    (line,) = calr(*export).errors
    assert line.startswith(f"{begins}The images of shop are no longer in ")
    assert line.endswith(ends)
    Path("own.onnx").unlink()


def test_a_model_of_another_program(calr: Calr) -> None:
    """It knows neither its dataset nor its input size."""
    torch.save(spcl(Network("resnet18")).content, "theirs.pth.tar")
    export = ("export", "--resume", "theirs.pth.tar", "--height", "64", "--width", "32", "--quiet")
    hint = "Give photographs of your own: --images DIR"
    assert calr(*export).errors == [
        f"error: no images to compare on: the model file names no dataset. {hint}"
    ]
    answer = calr(*export, "--images", "photos/0.png", "--json")
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert answer.json["batch_sizes"] == [1, 2]
    about = metadata("theirs.onnx")
    assert (about["height"], about["width"], about["dataset"]) == ("64", "32", "not known")
    assert "threshold" not in about


def test_a_difference_leaves_no_file(calr: Calr, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there before stays."""
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    Path("e.onnx").write_bytes(b"of yesterday")
    before = {path.name for path in Path().iterdir()}
    answer = calr("export", "--resume", "m.pth", "--images", "photos", "--output", "e.onnx", "--json")
    assert (answer.exit_code, answer.stdout, len(answer.errors)) == (1, "", 1)
    begins = "error: the exported model is another: its features differ by "
    assert answer.errors[0].startswith(begins)
    assert Path("e.onnx").read_bytes() == b"of yesterday"
    assert {path.name for path in Path().iterdir()} == before


MODEL = ["--resume", "m.pth"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([*MODEL, "--format", "tflite"], "--format tflite: not known. Known: onnx"),
        ([*MODEL, "--for", "yolo"], "--for yolo: not known. Known: boxmot, ultralytics, deepstream"),
        (["--resume", "no.pth"], "no file no.pth here, nor in a finished run"),
        ([*MODEL, "--output", "e.pb"], "--output e.pb: the name must end in .onnx"),
        ([*MODEL, "--output", "folder.onnx"], "--output folder.onnx is a folder. Give the name of a file"),
        ([*MODEL, "--images", "photos", "--output", "m.pth/e.onnx"], "--output m.pth/e.onnx cannot be"),
        ([*MODEL, "--images", "photos/bad.jpg"], "photos/bad.jpg: cannot be read (not an image)"),
        ([*MODEL, "--images", "nowhere"], "nowhere"),
        ([*MODEL, "-a", "resnet50"], "m.pth has arch resnet18, not resnet50"),
        (MODEL, "no images to compare on: veri is not prepared. Give photographs of your own: --images DIR"),
    ],
)
def test_what_cannot_be_done(calr: Calr, arguments: list[str], line: str) -> None:
    Path("folder.onnx").mkdir()
    answer = calr("export", *arguments)
    assert (answer.exit_code, answer.stdout, len(answer.errors)) == (1, "", 1)
    assert answer.errors[0].startswith(f"error: {line}")
    assert [path.name for path in Path().glob("*.onnx")] == ["folder.onnx"]


def test_without_the_packages(calr: Calr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # how Python marks what cannot be imported
    hint = "Install it with: pip install 'calr-cli[onnx]'"
    assert calr("export", *MODEL).errors == [f"error: --format onnx: onnxscript is not installed. {hint}"]
