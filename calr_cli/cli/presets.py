"""``calr presets list`` and ``calr presets show NAME``: the settings that come with a dataset."""

from __future__ import annotations

from typing import Annotated

import typer

from calr_cli.cli import completion, options
from calr_cli.cli.console import print_json, print_table, print_text

PURPOSE = "# Purpose:"
"""How the first line of every preset begins."""


def list_presets(json: options.Json = False) -> None:
    """List the presets.

    Example:
        calr presets list
    """
    from calr_cli.config.loading import preset_names, read_preset

    first_lines = {name: read_preset(name).partition("\n")[0] for name in preset_names()}
    purposes = {name: line.removeprefix(PURPOSE).strip() for name, line in first_lines.items()}
    if json:
        print_json({"presets": purposes})
    else:
        print_table(["preset", "purpose"], [list(pair) for pair in purposes.items()], numbers_from=2)


def show_preset(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="a preset, as listed, or an alias of its dataset",
            autocompletion=completion.presets,
        ),
    ],
) -> None:
    """Show what a preset sets.

    Example:
        calr presets show veri
    """
    from calr_cli.config.loading import read_preset
    from calr_cli.prepare.names import ALIASES

    print_text(read_preset(ALIASES.get(name, name)))
