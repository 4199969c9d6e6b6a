"""A model loaded from Python, as in docs/api.md; the commands that use one are tested in their own room."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import calr_cli
from calr_cli import load_embedder
from calr_cli.errors import CheckpointError, ConfigError, DataError
from calr_cli.models.encoder import Encoder
from calr_cli.training.checkpoint import ModelCard, save_model
from tests.support.foreign import Network, spcl
from tests.support.made_up import write_image


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pth"
    save_model(path, Encoder("resnet18", "avg"), ModelCard("shop", "inter", 1, "resnet18", "avg", 64, 32))
    return path


def test_a_model_knows_its_size_and_embeds_what_can_be_read(
    tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = [tmp_path / f"{n}.jpg" for n in range(3)]
    for n, image in enumerate(images):
        write_image(image, n)
    images[1].write_bytes(b"no image")
    loaded = load_embedder(str(model), device="cpu", settings={"evaluation.batch_size": 2})
    assert (loaded.settings.data.height, loaded.settings.evaluation.batch_size) == (64, 2)
    assert (loaded.dataset, loaded.calibration) == ("shop", None)
    features, failed = loaded.embed(images)
    assert features.paths == (str(images[0]), str(images[2]))
    assert np.allclose(np.linalg.norm(features.rows, axis=1), 1, atol=1e-4)
    assert len(failed) == 1
    assert str(images[1]) in failed[0]
    with pytest.raises(DataError, match=r"There is no image that can be read"):
        loaded.embed(images[1:2])
    assert capfd.readouterr() == ("", "")


def test_a_model_of_another_program_takes_its_size_from_the_settings(tmp_path: Path) -> None:
    torch.save(spcl(Network("resnet18")).content, tmp_path / "theirs.pth")
    loaded = load_embedder(tmp_path / "theirs.pth", settings={"data": {"height": 96, "width": 48}})
    assert (loaded.settings.data.height, loaded.settings.data.width) == (96, 48)
    assert loaded.dataset is None


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"data.height": 32}, CheckpointError, r"model\.pth has height 64, not 32\. Leave that out"),
        ({"batch_size": 3}, ConfigError, r"unknown setting batch_size \(settings\); did you mean "),
        ({"evaluation.batch_size": 0}, ConfigError, r"evaluation\.batch_size = 0 \(settings\) must be "),
    ],
)
def test_wrong_settings(model: Path, settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_embedder(model, settings=settings)


def test_the_package_alone_is_light() -> None:
    code = "import sys, calr_cli\nprint([name for name in ('torch', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match=re.escape("module 'calr_cli' has no attribute 'nothing'")):
        _ = calr_cli.nothing
