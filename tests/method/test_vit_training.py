"""Vision transformers train in both stages and both recipes, resume to the bit, and learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from calr_cli.config.loading import resolve_settings
from calr_cli.config.schema import Settings
from calr_cli.data.augment import HALF, PixelStatistics, normalise
from calr_cli.data.loaders import ImageFiles
from calr_cli.data.local_labels import read_local_labels
from calr_cli.errors import CheckpointError, ConfigError
from calr_cli.events import SilentReporter
from calr_cli.method.build import build_augmentation, build_encoder, check_start, check_start_model
from calr_cli.method.evaluate import evaluate
from calr_cli.method.inter import train_inter
from calr_cli.method.intra import train_intra
from calr_cli.models.vit import VITS
from calr_cli.prepare.prepared import load_dataset
from calr_cli.runs.find import create_run, open_run
from calr_cli.training.checkpoint import load_model
from calr_cli.training.optim import build_optimiser
from tests.method.test_recipe_plus import QUICK
from tests.support.small import small_dataset, small_settings
from tests.support.small_vits import SMALL_VITS
from tests.support.stages import (
    CPU,
    Notebook,
    assert_same_model,
    figures,
    run_inter,
    run_intra,
    weights,
)

MODEL = {"arch": "vit_small", "pooling": "cls", "pretrained": "none", "drop_path": 0.3}
SGD = {"name": "sgd", "lr": 0.01, "decayed": "matrices", "warmup_epochs": 2}


@pytest.fixture
def small_vits(monkeypatch: pytest.MonkeyPatch) -> None:
    for arch, size in SMALL_VITS.items():
        monkeypatch.setitem(VITS, arch, size)


def settings_of(model: dict[str, Any], **changes: Any) -> Settings:
    optimiser = {"optimiser": SGD}
    inter = {**optimiser, "refinement": {"enabled": False}, **changes.pop("inter", {})}
    return small_settings(model=MODEL | model, intra=optimiser, inter=inter, **changes)


@pytest.mark.usefixtures("small_vits")
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """Stochastic depth, momentum, groups of weights, warm-up, and a running average included."""
    dataset = small_dataset(tmp_path / "data")
    settings = settings_of({"arch": "vit_small_ics"}, inter={"average": 0.5}, batch_norm_group_size=4)
    whole = run_inter(settings, dataset, None, tmp_path / "whole")
    run = create_run(settings, "inter", [CPU], tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        train_inter(settings, dataset, None, run, CPU, Notebook(2))
    train_inter(settings, dataset, None, open_run(run.path, "inter"), CPU, SilentReporter())
    assert_same_model(whole.model, run.model)
    assert figures(whole) == figures(run)
    straight = settings_of({"arch": "vit_small_ics", "drop_path": 0}, inter={"average": 0.5})
    other = run_inter(straight, dataset, None, tmp_path / "straight")
    assert figures(other)[0]["loss"] != figures(whole)[0]["loss"]  # the control: branches were left out


@pytest.mark.usefixtures("small_vits")
def test_both_stages_with_a_network_per_camera(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    settings = settings_of({"pooling": "avg"}, inter={"refinement": {"enabled": True}}, precision="bf16")
    intra = run_intra(settings, dataset, tmp_path / "intra")
    inter = run_inter(settings, dataset, intra.local_labels, tmp_path / "inter")
    encoder, card = load_model(inter.model)
    assert (card.arch, card.pooling, card.mean, card.std) == ("vit_small", "avg", HALF.mean, HALF.std)
    assert evaluate(settings, encoder, dataset, False, SilentReporter())["mAP"] > 0


@pytest.mark.usefixtures("small_vits")
def test_plus_trains_on_from_the_network_of_stage_1(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    settings = resolve_settings(
        "market1501", None, [*QUICK, "model.arch=vit_small", "data.mean=0.4,0.5,0.6"], recipe="plus"
    ).settings
    assert (settings.model.pooling, settings.inter.optimiser.name) == ("cls", "sgd")
    intra = create_run(settings, "intra", [CPU], tmp_path / "intra")
    train_intra(settings, dataset, intra, CPU, SilentReporter())
    check_start_model(settings, intra.local_labels)
    inter = create_run(settings, "inter", [CPU], tmp_path / "inter")
    inter.start.parent.mkdir(parents=True, exist_ok=True)
    inter.start.write_bytes(intra.model.read_bytes())
    local_labels = read_local_labels(intra.local_labels, dataset.train)
    train_inter(settings, dataset, local_labels, inter, CPU, SilentReporter())
    card = load_model(inter.model)[1]
    assert (card.mean, card.std) == ((0.4, 0.5, 0.6), HALF.std)
    wider = settings.model_copy(update={"data": settings.data.model_copy(update={"width": 48})})
    with pytest.raises(CheckpointError) as error:
        check_start_model(wider, intra.local_labels)
    assert error.value.lines() == [
        f"{intra.model} is a vit_small for 32 x 32, not for 32 x 48. Give --height 32 --width 32, or run "
        "stage 1 again"
    ]


@pytest.mark.usefixtures("small_vits")
def test_the_projection_of_patches_can_stay_as_it_was(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    frozen = settings_of({"freeze_patches": True})
    before = build_encoder(frozen, "inter", CPU).state_dict()
    after = weights(run_inter(frozen, dataset, None, tmp_path / "frozen").model)
    moved = weights(run_inter(settings_of({}), dataset, None, tmp_path / "moved").model)
    for name in ("backbone.patch_embed.proj.weight", "backbone.patch_embed.proj.bias"):
        assert torch.equal(before[name], after[name])
        assert not torch.equal(before[name], moved[name])
    assert not torch.equal(before["backbone.pos_embed"], after["backbone.pos_embed"])


@pytest.mark.usefixtures("small_vits")
def test_what_training_starts_from_says_its_pixel_statistics() -> None:
    start = "vit_small starts from random weights; pixels normalised by "
    assert check_start(settings_of({})) == f"{start}mean 0.5 0.5 0.5, std 0.5 0.5 0.5"
    own = settings_of({}, data={"mean": (0.1, 0.2, 0.3)})
    assert check_start(own) == f"{start}mean 0.1 0.2 0.3, std 0.5 0.5 0.5"
    assert build_augmentation(own, build_encoder(own, "inter", CPU)).statistics == PixelStatistics(
        (0.1, 0.2, 0.3), HALF.std
    )
    assert check_start(small_settings()) == "resnet18 starts from random weights"
    other = small_settings(data={"std": (1, 1, 1)})
    assert check_start(other).endswith("pixels normalised by mean 0.485 0.456 0.406, std 1 1 1")


@pytest.mark.parametrize(("name", "value"), [("drop_path", 0.1), ("freeze_patches", True)])
def test_settings_of_vision_transformers_are_not_for_resnets(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as error:
        check_start(small_settings(model={name: value}))
    assert error.value.lines() == [f"model.{name} is for vision transformers, not for resnet18"]


@pytest.mark.e2e
def test_vit_small_learns_identities_that_it_is_told() -> None:
    """From random weights: network, statistics of its neck, optimiser, extraction, retrieval."""
    dataset = load_dataset("synthetic", None, SilentReporter())
    settings = resolve_settings("synthetic", None, ["model.arch=vit_small", "precision=fp32"]).settings
    images, quiet = dataset.train, SilentReporter()
    encoder = build_encoder(settings, "inter", CPU)
    untrained = evaluate(settings, encoder, dataset, False, quiet)["mAP"]
    identities = np.unique(images.pids, return_inverse=True)[1]
    pixels = ImageFiles(images, settings.data.height, settings.data.width, 1)
    head = nn.Linear(encoder.feature_dim, identities.max() + 1)
    parameters = [*encoder.train().parameters(), *head.parameters()]
    optimiser = build_optimiser(parameters, lr=3e-4, weight_decay=1e-2, name="adamw")
    batches = np.random.default_rng(0).integers(0, len(images), (60, 32))
    for batch, block in zip(batches, pixels.batches(batches), strict=True):
        logits = head(20 * encoder(normalise(block, encoder.statistics)))
        optimiser.zero_grad()
        cross_entropy(logits, torch.from_numpy(identities[batch])).backward()
        optimiser.step()
    # 4 and 22 when this was written; without learning, no more than at first.
    assert evaluate(settings, encoder, dataset, False, quiet)["mAP"] > untrained + 8
