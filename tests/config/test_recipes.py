from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from calr_cli.config.loading import flat_settings, preset_names, read_recipe, recipe_names, resolve_settings
from calr_cli.config.wording import LEAVES
from calr_cli.errors import ConfigError


def test_there_are_two() -> None:
    assert recipe_names() == ["calr", "plus"]


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("dataset", [*preset_names(), "own"])
def test_each_parses_over_every_preset(name: str, dataset: str) -> None:
    plain, resolved = resolve_settings(dataset, None), resolve_settings(dataset, None, recipe=name)
    before, after = flat_settings(plain.settings), flat_settings(resolved.settings)
    given = {key for key, origin in resolved.origins.items() if origin == f"recipe {name}"}
    assert bool(given) == (name != "calr")  # which is the method as it is
    assert {key for key in LEAVES if before[key] != after[key]} <= given
    others = set(LEAVES) - given
    assert all(resolved.origins[key] == plain.origins[key] for key in others)


@pytest.mark.parametrize("name", recipe_names())
def test_each_changes_only_what_differs_from_a_default_or_a_preset(name: str) -> None:
    recipe = resolve_settings(None, None, recipe=name)
    values = flat_settings(recipe.settings)
    plain = [flat_settings(resolve_settings(dataset, None).settings) for dataset in preset_names()]
    for key, origin in recipe.origins.items():
        if origin == f"recipe {name}":
            assert any(settings[key] != values[key] for settings in plain), key


@pytest.mark.parametrize("name", recipe_names())
def test_each_has_a_header_with_a_command_that_uses_it(name: str) -> None:
    header = [line for line in read_recipe(name).splitlines() if line.startswith("# ")]
    assert header[0].startswith("# Purpose: ")
    words = shlex.split(header[-1].removeprefix("# Launch: "))
    assert words[:2] == ["calr", "train"]
    assert words[words.index("--recipe") + 1] == name


def test_a_recipe_wins_over_preset_and_file_and_loses_to_set_and_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(
        "intra: {clustering: {num_clusters: 7, k1: 9}}\ninter: {average: 0.5, epochs: 3}\n", encoding="utf-8"
    )
    assignments = ["inter.start=pretrained", "inter.proxies.weight=1"]
    flags = {"inter.proxies.weight": ("--weight", 2.0)}
    resolved = resolve_settings("market1501", Path("my.yaml"), assignments, flags, "plus")
    keys = {
        "intra.network": ("shared", "recipe plus"),
        "intra.clustering.num_clusters": (None, "recipe plus"),
        "intra.clustering.k1": (9, "--config my.yaml"),
        "inter.epochs": (3, "--config my.yaml"),
        "inter.start": ("pretrained", "--set"),
        "inter.proxies.weight": (2.0, "--weight"),
        "inter.iters": (400, "default"),
    }
    values = flat_settings(resolved.settings)
    assert {key: (values[key], resolved.origins[key]) for key in keys} == keys
    assert resolved.origins["inter.average"] == "recipe plus"
    over_preset = resolve_settings("market1501", None, recipe="plus")
    assert over_preset.settings.intra.clustering.num_clusters is None  # of Market-1501's preset: 600
    assert over_preset.origins["inter.iters"] == "preset market1501"


def test_without_a_recipe_nothing_of_it_is_used() -> None:
    for dataset in (*preset_names(), "own"):
        settings = resolve_settings(dataset, None).settings
        assert (settings.intra.network, settings.inter.start) == ("per-camera", "pretrained")
        assert (settings.inter.average, settings.inter.proxies.weight) == (0, 0)
        assert (settings.inter.clustering.method, settings.inter.clustering.standardise) == ("infomap", False)


def test_unknown_recipe() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_settings("veri", None, recipe="pluss")
    assert caught.value.lines() == ["no recipe 'pluss' among calr, plus; did you mean plus?"]
