"""Settings that go with a family of architectures, and those with three numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from calr_cli.config.loading import (
    dump_settings,
    family_names,
    flat_settings,
    load_settings_file,
    preset_names,
    read_family,
    resolve_settings,
)
from calr_cli.errors import ConfigError
from calr_cli.models.vit import VITS


def test_the_families() -> None:
    assert family_names() == ["vit"]
    assert all(arch.startswith("vit_") for arch in VITS)
    assert read_family("vit").startswith("# Purpose: ")


def test_vision_transformers_have_the_published_settings() -> None:
    resolved = resolve_settings("msmt17", None, ["model.arch=vit_small"])
    settings = resolved.settings
    assert (settings.model.pooling, settings.model.drop_path, settings.model.pretrained) == (
        "cls",
        0.3,
        "person",
    )
    inter = settings.inter
    assert (inter.batch_size, inter.num_instances, inter.iters, inter.epochs) == (256, 8, 200, 50)
    assert (inter.memory.momentum, inter.memory.mode) == (0.2, "hard")
    optimiser = inter.optimiser
    assert (optimiser.name, optimiser.lr, optimiser.momentum) == ("sgd", 3.5e-4, 0.9)
    assert (optimiser.weight_decay, optimiser.step_size, optimiser.gamma) == (5e-4, 20, 0.1)
    assert resolved.origins["model.pooling"] == "family vit"


@pytest.mark.parametrize("arch", VITS)
@pytest.mark.parametrize("dataset", [*preset_names(), "own"])
def test_each_parses_over_every_preset(arch: str, dataset: str) -> None:
    for recipe in (None, "plus"):
        flags = {"model.arch": ("-a/--arch", arch)}
        settings = resolve_settings(dataset, None, flags=flags, recipe=recipe).settings
        assert (settings.model.arch, settings.model.pooling) == (arch, "cls")


def test_presets_files_recipes_set_and_flags_win_over_a_family(tmp_path: Path) -> None:
    assert resolve_settings("synthetic", None, ["model.arch=vit_small"]).settings.inter.iters == 40
    (tmp_path / "own.yaml").write_text("model: {arch: vit_base, pooling: avg}\ninter: {iters: 7}")
    resolved = resolve_settings(None, tmp_path / "own.yaml", ["inter.memory.mode=all"])
    settings = resolved.settings
    assert (settings.model.pooling, settings.inter.iters, settings.inter.memory.mode) == ("avg", 7, "all")
    assert (settings.inter.num_instances, resolved.origins["inter.num_instances"]) == (8, "family vit")


def test_other_architectures_have_no_family() -> None:
    for arch in ("resnet50", "resnet_ibn50a", "mobilenet_v2"):
        plain = flat_settings(resolve_settings("msmt17", None).settings)
        assert flat_settings(resolve_settings("msmt17", None, [f"model.arch={arch}"]).settings) == plain | {
            "model.arch": arch
        }


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0.1,0.2,0.3", (0.1, 0.2, 0.3)),
        ("[0.1, 0.2, 0.3]", (0.1, 0.2, 0.3)),
        ("0.5", (0.5, 0.5, 0.5)),
        ("null", None),
    ],
)
def test_three_numbers(text: str, numbers: tuple[float, ...] | None, tmp_path: Path) -> None:
    settings = resolve_settings("own", None, [f"data.mean={text}"]).settings
    assert settings.data.mean == numbers
    (tmp_path / "config.yaml").write_text(dump_settings(settings))
    assert load_settings_file(tmp_path / "config.yaml") == settings


def test_what_is_no_three_numbers() -> None:
    given = ["data.mean=0.1,0.2", "data.std=0.5,0,0.5"]
    with pytest.raises(ConfigError) as error:
        resolve_settings("own", None, given)
    assert error.value.lines() == [
        "data.mean = 0.1,0.2 (--set) must be three numbers, or one for all three channels, or null",
        "data.std = 0.5,0,0.5 (--set) must be numbers above 0: pixels are divided by them",
    ]
    for text in ("black", "0.1,nan,0.3", "1,2,3,4", "inf"):
        with pytest.raises(
            ConfigError, match=r"must be three numbers, or one for all three channels, or null"
        ):
            resolve_settings("own", None, [f"data.mean={text}"])
