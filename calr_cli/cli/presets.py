"""``calr presets list`` and ``calr presets show NAME``: the settings that come with calr."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from calr_cli.cli import completion, options
from calr_cli.cli.console import print_json, print_table, print_text
from calr_cli.errors import ConfigError

PURPOSE = "# Purpose:"
"""How the first line of every preset and recipe begins."""


def list_presets(json: options.Json = False) -> None:
    """List the presets, which -d chooses, and the recipes, which --recipe chooses.

    Example:
        calr presets list
    """
    from calr_cli.config.loading import preset_names, read_preset, read_recipe, recipe_names

    presets, recipes = purposes(preset_names(), read_preset), purposes(recipe_names(), read_recipe)
    if json:
        print_json({"presets": presets, "recipes": recipes})
        return
    print_table(["preset", "purpose"], [list(pair) for pair in presets.items()], numbers_from=2)
    print_text("")
    print_table(["recipe", "purpose"], [list(pair) for pair in recipes.items()], numbers_from=2)


def purposes(names: Sequence[str], read: Callable[[str], str]) -> dict[str, str]:
    """What each of these is for: its first line."""
    return {name: read(name).partition("\n")[0].removeprefix(PURPOSE).strip() for name in names}


def show_preset(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="a preset or recipe, as listed, or an alias of a preset's dataset",
            autocompletion=completion.presets,
        ),
    ],
) -> None:
    """Show what a preset or a recipe sets.

    Examples:
        calr presets show veri
        calr presets show plus
    """
    from calr_cli.config.layers import did_you_mean
    from calr_cli.config.loading import preset_names, read_preset, read_recipe, recipe_names
    from calr_cli.prepare.names import ALIASES

    presets, recipes, canonical = preset_names(), recipe_names(), ALIASES.get(name, name)
    if canonical in presets:
        print_text(read_preset(canonical))
    elif name in recipes:
        print_text(read_recipe(name))
    else:
        guess = did_you_mean(difflib.get_close_matches(name, [*presets, *recipes], n=1))
        raise ConfigError(
            f"no preset '{name}' among {', '.join(presets)}, and no recipe among {', '.join(recipes)}{guess}"
        )
