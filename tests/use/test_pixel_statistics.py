"""Pixel statistics travel with a network: into its file, out of it, and to everything that embeds with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from calr_cli import load_embedder
from calr_cli.data.augment import HALF, IMAGENET, PixelStatistics, normalise
from calr_cli.data.images import read_pixels
from calr_cli.errors import CheckpointError
from calr_cli.events import SilentReporter
from calr_cli.models.encoder import Encoder
from calr_cli.models.foreign import build_foreign, foreign_weights
from calr_cli.models.vit import VITS
from calr_cli.training.checkpoint import ModelCard, load_model, save_model
from calr_cli.use.exporting import export_onnx
from tests.support.foreign import Network, fast_reid
from tests.support.made_up import write_image
from tests.support.small_vits import SMALL_VITS

OWN = PixelStatistics((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        write_image(path, number)
    return paths


def saved(path: Path, arch: str, statistics: PixelStatistics | None = None) -> Encoder:
    torch.manual_seed(0)
    pooling = "cls" if arch in VITS else "gem"
    encoder = Encoder(arch, pooling, 64, 32).eval()
    encoder.statistics = statistics or encoder.statistics
    card = ModelCard("shop", "inter", 1, arch, pooling, 64, 32)
    card = replace(card, mean=encoder.statistics.mean, std=encoder.statistics.std)
    save_model(path, encoder, card)
    return encoder


@pytest.mark.parametrize(
    ("arch", "statistics"),
    [("vit_small", None), ("vit_small_ics", None), ("vit_small", OWN), ("resnet18", HALF)],
)
def test_embedding_and_onnx_normalise_as_the_card_says(
    arch: str,
    statistics: PixelStatistics | None,
    tmp_path: Path,
    photos: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, size in SMALL_VITS.items():
        monkeypatch.setitem(VITS, name, size)
    encoder = saved(tmp_path / "model.pth", arch, statistics)
    used = statistics or HALF
    pixels = torch.from_numpy(np.stack([read_pixels(path, 64, 32) for path in photos]))
    with torch.no_grad():
        expected = encoder(normalise(pixels, used)).numpy()
    loaded = load_embedder(tmp_path / "model.pth", device="cpu", settings={"precision": "fp32"})
    assert (loaded.settings.data.mean, loaded.settings.data.std) == (used.mean, used.std)
    np.testing.assert_allclose(loaded.embed(photos)[0].rows, expected, atol=1e-5)

    result = export_onnx(loaded, [str(path) for path in photos], tmp_path / "m.onnx", SilentReporter())
    assert result["largest_difference"] < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert (json.loads(metadata["mean"]), json.loads(metadata["std"])) == (list(used.mean), list(used.std))
    assert metadata["pooling"] == ("cls" if arch in VITS else "gem")

    # Features of other statistics are those of another model.
    other = load_model(tmp_path / "model.pth")[0]
    other.statistics = IMAGENET
    assert replace(loaded, encoder=other).key != loaded.key


def test_a_setting_that_contradicts_the_model_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "model.pth", "resnet18", HALF)
    same = load_embedder(tmp_path / "model.pth", settings={"data.mean": 0.5, "data.std": [0.5, 0.5, 0.5]})
    assert same.encoder.statistics == HALF
    with pytest.raises(CheckpointError) as error:
        load_embedder(tmp_path / "model.pth", settings={"data.mean": "0.5,0.5,0.4"})
    assert error.value.lines() == [
        f"{tmp_path / 'model.pth'} has mean (0.5, 0.5, 0.5), not (0.5, 0.5, 0.4). Leave that out: the "
        "model knows it"
    ]


def test_a_model_of_an_older_calr_has_imagenets(tmp_path: Path, photos: list[Path]) -> None:
    """Its card says nothing, its features and the name of its feature files stay what they were."""
    encoder = saved(tmp_path / "new.pth", "resnet18")
    content = torch.load(tmp_path / "new.pth", weights_only=True)
    del content["card"]["mean"], content["card"]["std"]
    torch.save(content, tmp_path / "old.pth")
    old = load_embedder(tmp_path / "old.pth", device="cpu", settings={"precision": "fp32"})
    pixels = torch.from_numpy(np.stack([read_pixels(path, 64, 32) for path in photos]))
    mean = torch.tensor([0.485, 0.456, 0.406])
    std = torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = encoder(((pixels / 255 - mean) / std).permute(0, 3, 1, 2))
    np.testing.assert_allclose(old.embed(photos)[0].rows, expected.numpy(), atol=1e-5)
    assert old.settings.data.mean == IMAGENET.mean
    assert old.key == load_embedder(tmp_path / "new.pth", device="cpu").key


def test_fast_reid_says_its_own(tmp_path: Path) -> None:
    content = fast_reid(Network("resnet18")).content
    content["model"]["pixel_mean"] = torch.tensor([127.5, 127.5, 127.5]).view(1, 3, 1, 1)
    content["model"]["pixel_std"] = torch.tensor([51.0, 51.0, 51.0]).view(1, 3, 1, 1)
    weights = foreign_weights(content, tmp_path, CheckpointError)
    assert weights.statistics == PixelStatistics((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert build_foreign(weights, "resnet18", "gem", CheckpointError).statistics == weights.statistics
