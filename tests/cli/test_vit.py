"""A vision transformer from a pretraining's file to an ONNX file, as its users type it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from calr_cli.models.encoder import Encoder
from calr_cli.models.vit import VITS
from calr_cli.training.checkpoint import load_model
from tests.cli.conftest import Calr
from tests.cli.test_end_to_end import SMALL
from tests.support.pretraining import dino, under
from tests.support.small_vits import SMALL_VITS

FEW = ["--set", "inter.iters=2", "--set", "inter.epochs=1", *SMALL]
PIXELS = "pixels normalised by mean 0.5 0.5 0.5, std 0.5 0.5 0.5"


@pytest.fixture(autouse=True)
def small_vits(monkeypatch: pytest.MonkeyPatch) -> None:
    for arch, size in SMALL_VITS.items():
        monkeypatch.setitem(VITS, arch, size)


def write_start(arch: str) -> None:
    torch.manual_seed(0)
    torch.save(dino(dict(Encoder(arch, "cls").backbone.state_dict())), "start.pth")


@pytest.mark.e2e
def test_from_a_start_to_a_report_and_an_onnx_file(calr: Calr, veri: str) -> None:
    write_start("vit_small_ics")
    trained = calr(
        *["train", "-d", veri, "-a", "vit_small_ics", "--pretrained", "start.pth", "--recipe", "plus"],
        *[*FEW, "--output", "both"],
    )
    assert (
        "vit_small_ics starts from start.pth (backbone by the names of DINO); left out: head (2); " + PIXELS
        in trained.stderr.splitlines()
    )
    assert trained.exit_code == 0
    model = "both/inter/model.pth"
    assert load_model(Path(model))[1].std == (0.5, 0.5, 0.5)
    figures = calr("evaluate", "--resume", model, "--json").json
    assert figures["mAP"] > 0
    exported = calr("export", "--resume", model, "--output", "m.onnx", "--json").json
    assert exported["largest_difference"] < 1e-4
    assert calr("report", "both/inter", "--output", "r.html").exit_code == 0


def test_a_fine_tuned_file_of_the_publishers_brings_size_and_pixels(calr: Calr, veri: str) -> None:
    encoder = Encoder("vit_small", "cls", 64, 32)
    state = dict(encoder.backbone.state_dict()) | under("bottleneck.", encoder.neck.state_dict())
    torch.save({"state_dict": under("module.", state), "epoch": 50}, "theirs.pth")
    answer = calr("evaluate", "-d", veri, "--resume", "theirs.pth", "--json")
    assert answer.json["mAP"] > 0
    assert (
        "theirs.pth is vit_small by the names of TransReID-SSL, class token, batch norm neck; pixels "
        "normalised "
        "by: mean 0.5 0.5 0.5, std 0.5 0.5 0.5; the file says: epoch 50; input 64 x 32" in answer.stderr
    )
    shown = calr("evaluate", "-d", veri, "--resume", "theirs.pth", "--print-config").stdout.splitlines()
    assert "  pooling: cls  # theirs.pth" in shown
    assert "  height: 64  # theirs.pth" in shown


def test_weights_that_were_not_fetched_and_those_of_another_kind(calr: Calr, veri: str) -> None:
    answer = calr("train", "-d", veri, "-a", "vit_small", *FEW)
    assert answer.exit_code == 1
    (line,) = answer.errors
    assert line.startswith(
        "error: no person-pretrained weights of vit_small: vit_small_cfs_lup.pth is neither "
    )
    assert line.endswith(". Get them with: calr fetch-pretrained -a vit_small")
    answer = calr("train", "-d", veri, "-a", "vit_small", "--pretrained", "imagenet", *FEW)
    assert answer.errors == [
        "error: --pretrained imagenet: calr knows no such published weights of vit_small, only "
        "person-pretrained "
        "weights. Give --pretrained person, none, or a file"
    ]


def test_poolings_of_the_other_kind(calr: Calr, veri: str) -> None:
    random = ["-d", veri, "--pretrained", "none", *FEW]
    assert calr("train", "-a", "vit_small", "--pooling", "gem", *random).errors == [
        "error: unknown pooling 'gem' of a vision transformer. Known: cls, avg"
    ]
    assert calr("train", "-a", "resnet18", "--pooling", "cls", *random).errors == [
        "error: unknown pooling 'cls'. Known: gem, avg"
    ]
