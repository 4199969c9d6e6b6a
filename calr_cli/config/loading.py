"""Combines presets, files, ``--set`` and flags into settings, and reports all problems at once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from calr_cli.config.following import AUTO, OwnImages, follow
from calr_cli.config.layers import Given, Layer, did_you_mean, read_assignments, read_file, read_layer
from calr_cli.config.schema import Settings
from calr_cli.config.wording import FOLLOWING, LEAVES, choices, expected, shown
from calr_cli.errors import ConfigError

PRESETS = files("calr_cli.config") / "presets"
RECIPES = files("calr_cli.config") / "recipes"
FAMILIES = files("calr_cli.config") / "families"
"""Settings that go with a family of architectures, below presets and files."""

OWN_RECIPE = "plus"
"""What training on a user's own images follows by default; on other datasets that is the published method."""

BY_DEFAULT = f"recipe {OWN_RECIPE} (own images)"
"""The origin of the settings that it gives then."""


_MEASURED = "# Measured: "


@dataclass(frozen=True)
class ResolvedSettings:
    """Settings and the origin of each.

    Attributes:
        settings: Settings that the run uses.
        origins: Dotted key -> ``default``, ``family vit``, ``preset veri``, ``--config FILE``, ``--set`` or a
            flag's text, one entry for every setting.
    """

    settings: Settings
    origins: Mapping[str, str]


def preset_names() -> list[str]:
    """The names of the presets, sorted; each is the name of a dataset."""
    return _names(PRESETS)


def recipe_names() -> list[str]:
    """The names of the recipes, sorted; a recipe changes the published method."""
    return _names(RECIPES)


def read_preset(name: str) -> str:
    """The YAML text of a preset, header included.

    Raises:
        ConfigError: There is no such preset.
    """
    return _read(PRESETS, "preset", name)


def read_recipe(name: str) -> str:
    """The YAML text of a recipe, header included.

    Raises:
        ConfigError: There is no such recipe.
    """
    return _read(RECIPES, "recipe", name)


def family_names() -> list[str]:
    """The names of the families of architectures that have settings of their own, sorted."""
    return _names(FAMILIES)


def read_family(name: str) -> str:
    """The YAML text of the settings of a family of architectures.

    Raises:
        ConfigError: There is no such family.
    """
    return _read(FAMILIES, "family", name)


def measured(recipe: str) -> str:
    """What a recipe reached, as its header says.

    Raises:
        ConfigError: There is no such recipe.
    """
    (line,) = [line for line in read_recipe(recipe).splitlines() if line.startswith(_MEASURED)]
    return line.removeprefix(_MEASURED)


def _names(folder: Traversable) -> list[str]:
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def _read(folder: Traversable, kind: str, name: str) -> str:
    names = _names(folder)
    if name not in names:
        guess = did_you_mean(difflib.get_close_matches(name, names, n=1))
        raise ConfigError(f"no {kind} '{name}' among {', '.join(names)}{guess}")
    return (folder / f"{name}.yaml").read_text(encoding="utf-8")


def resolve_settings(
    dataset: str | None,
    config_file: Path | None,
    assignments: Sequence[str] = (),
    flags: Mapping[str, tuple[str, Any]] | None = None,
    recipe: str | None = None,
    own_images: Callable[[str], OwnImages | None] = lambda name: None,
) -> ResolvedSettings:
    """Settings by precedence: default < family < preset or file < ``recipe`` < ``assignments`` < ``flags``.

    A family is what the name of an architecture begins with, as ``vit`` of ``vit_small``.

    With a user's own images, what follows the images comes right after the defaults, and the recipe for them
    right after the family.

    Args:
        dataset: Value of ``-d/--dataset``; its preset applies if there is one. Without ``-d``, the dataset is
            that of ``--set``, or else of the file, or else the default.
        config_file: YAML that replaces the preset.
        assignments: ``KEY=VALUE`` texts of ``--set``; of two with the same key, the later wins.
        flags: Dotted key -> (text of the flag, value); a value of None means that the flag was not given.
        recipe: Name of a recipe.
        own_images: Says what is known of a dataset that is a user's own images; None of any other.

    Raises:
        ConfigError: Some settings are wrong; there is a line for each problem.
    """
    problems: list[str] = []
    over = read_assignments(assignments, problems)
    over |= {key: Given(value, flag) for key, (flag, value) in (flags or {}).items() if value is not None}
    if dataset is not None:
        over["data.dataset"] = Given(dataset, "-d/--dataset")
    base: Layer = {}
    if config_file is not None:
        base = read_file(config_file, f"--config {config_file}", problems)
    else:
        chosen = over["data.dataset"].value if "data.dataset" in over else Settings().data.dataset
        if chosen in preset_names():
            base = read_layer(read_preset(chosen), f"preset {chosen}", problems)
    asked = {} if recipe is None else read_layer(read_recipe(recipe), f"recipe {recipe}", problems)
    given = base | asked | over
    own = own_images(str(given["data.dataset"].value) if "data.dataset" in given else "")
    if own:
        given = {key: entry for key, entry in given.items() if key not in FOLLOWING or entry.value != AUTO}
        if recipe is None:
            given = read_layer(read_recipe(OWN_RECIPE), BY_DEFAULT, problems) | given
    arch = given["model.arch"].value if "model.arch" in given else ""
    family = str(arch).partition("_")[0]
    if family in family_names():
        given = read_layer(read_family(family), f"family {family}", problems) | given
    if own:
        given = follow(own, given) | given
    return validated(given, problems)


def load_settings_file(path: Path) -> Settings:
    """The settings of a run folder's ``config.yaml``, or of any settings file.

    Raises:
        ConfigError: Some settings are wrong; there is a line for each problem.
    """
    problems: list[str] = []
    return validated(read_file(path, str(path), problems), problems).settings


def dump_settings(settings: Settings) -> str:
    """The settings as YAML that `load_settings_file` reads back unchanged."""
    return to_yaml(settings.model_dump())


def flat_settings(settings: Settings) -> dict[str, Any]:
    """Dotted key -> value of every setting, in the order of the schema."""
    return {key: reduce(getattr, key.split("."), settings) for key in LEAVES}


def print_config(resolved: ResolvedSettings) -> str:
    """The settings as YAML, each followed by its origin as a comment."""
    return annotated(resolved.settings.model_dump(), resolved.origins, "")


def annotated(tree: Mapping[str, Any], origins: Mapping[str, str], prefix: str) -> str:
    """The YAML of one section, the keys of which start with ``prefix``."""
    indent = "  " * prefix.count(".")
    text = ""
    for name, value in tree.items():
        if isinstance(value, dict):
            text += f"{indent}{name}:\n{annotated(value, origins, f'{prefix}{name}.')}"
        else:
            text += f"{indent}{to_yaml({name: value}).rstrip()}  # {origins[prefix + name]}\n"
    return text


def to_yaml(tree: Mapping[str, Any]) -> str:
    """Block style YAML in the order given, every value on one line."""
    return yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True, width=float("inf"))


def validated(given: Layer, problems: list[str]) -> ResolvedSettings:
    """Settings from flat values, or one error with the ``problems`` so far and those of the schema."""
    tree: dict[str, Any] = {}
    for key, entry in given.items():
        *sections, leaf = key.split(".")
        section = tree
        for name in sections:
            section = section.setdefault(name, {})
        section[leaf] = entry.value
    origins = {key: given[key].origin if key in given else "default" for key in LEAVES}
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        problems = problems + [in_plain_words(dict(detail), given) for detail in error.errors()]
    if problems:
        raise ConfigError(problems)
    return ResolvedSettings(settings, origins)


def in_plain_words(detail: Mapping[str, Any], given: Layer) -> str:
    """One problem that the schema found: setting, value, origin, and what it must be."""
    key = ".".join(detail["loc"])

    def quoted(key: str) -> str:
        entry = given.get(key, Given(LEAVES[key].default, "default"))
        return f"{key} = {shown(entry.value)} ({entry.origin})"

    if detail["type"] == "order":
        return (
            f"{quoted(key)} {detail['msg']} {quoted(key.rpartition('.')[0] + '.' + detail['ctx']['other'])}"
        )
    if detail["type"] == "numbers":
        return f"{quoted(key)} {detail['msg']}"
    if key in FOLLOWING and given[key].value == AUTO:
        return f"{quoted(key)}: only a new training on your own images chooses a value"
    options = choices(LEAVES[key])
    guess = did_you_mean(difflib.get_close_matches(str(given[key].value), options, n=1)) if options else ""
    return f"{quoted(key)} must be {expected(LEAVES[key])}{guess}"
