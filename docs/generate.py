"""Write the pages that are made from the code, in whole or in part; ``--check`` names pages that differ."""

from __future__ import annotations

import argparse
import ast
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from types import NoneType
from typing import Any, get_args, get_type_hints

import typer
from rich.text import Text

from calr_cli.cli.app import app
from calr_cli.cli.options import SETTING_FLAGS
from calr_cli.config.loading import (
    ResolvedSettings,
    family_names,
    flat_settings,
    preset_names,
    recipe_names,
    resolve_settings,
)
from calr_cli.config.schema import Settings
from calr_cli.config.wording import FOLLOWING, LEAVES, SECTIONS, TYPE_WORDS, range_words, shown, type_words
from calr_cli.files import atomic_write

DOCS = Path(__file__).resolve().parent
PACKAGE = DOCS.parent / "calr_cli"

INTRODUCTION = """\
# Configuration

`python docs/generate.py` generates this page from `calr_cli/config/schema.py`; do not edit it.

A setting gets its value from these sources. A later source overrides an earlier one:

1. the default in the tables below; where it says "or auto", the value for your own images follows the images
   ([datasets.md](datasets.md#settings-that-follow-your-images));
2. the family of the architecture (`vit` of `-a vit_small`), and for your own images the recipe plus;
3. the preset of the dataset (`-d veri`), or the file of `--config FILE`, which replaces the preset;
4. the recipe of `--recipe NAME`;
5. `--set KEY=VALUE`, as often as needed, with the names below: `--set inter.memory.temperature=0.07`;
6. a dedicated flag, such as `-b/--batch-size`.

`--print-config` shows all settings and where each value came from. A file nests the dotted names, as the
presets do (`calr presets show veri`). `null` means that calr works the value out as the table says. calr
reports all wrong or unknown settings at once, one line each.

The word in brackets names the source of the default: *paper* (arXiv 2403.16450), *release* (the authors'
program), *field* (usual in re-identification), *ours* (chosen for calr).
"""

FAMILIES = """
## What the families change

The settings of `vit` are those that TransReID-SSL published for unsupervised training of vision
transformers. A preset or a file overrides them."""

PRESETS = """
## What the presets change

An empty cell means the default. Your own images have no preset."""

RECIPES = """
## What the recipes change

Without `--recipe`, training on your own images follows plus, which a file of `--config` overrides; on a
dataset with a preset it follows the published method. The recipe calr is that method: it changes nothing. A
recipe that `--recipe` names overrides the preset or file."""

COMMANDS = """\
# Commands

`python docs/generate.py` generates this page from the commands in `calr_cli/cli`; do not edit it.
`--help` after a command shows the same text.

calr prints results on stdout, and progress and the next commands to type on stderr. The exit code is 0 on
success; 1 if a value or file cannot be used (one line for each); 2 for an unknown option or a missing
argument; 130 after an interrupt.

`calr --install-completion` sets up Tab for bash, zsh, fish and PowerShell; `calr --show-completion` prints
what it would install. Tab then completes commands, options, and the names of datasets, networks, presets,
runs and models.

A default such as `model.arch` means the value of that setting: the one that the model file records, or else
the preset of the dataset, or else the default in [configuration.md](configuration.md).
"""

STAGES = {"train-intra": "intra", "train-inter": "inter"}
"""Command -> the section of settings that its own flags belong to; every other command: evaluation."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield ""
    for row in [head, ["---"] * len(head), *rows]:
        yield f"| {' | '.join(row)} |"


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def setting_row(key: str) -> list[str]:
    field = LEAVES[key]
    return [
        code(key),
        type_words(field),
        code(shown(field.default)) + (" or auto" if key in FOLLOWING else ""),
        range_words(field),
        str(field.description),
    ]


def changes(sources: Mapping[str, ResolvedSettings], kind: str) -> Iterator[str]:
    """The lines of a table of what each preset, or each recipe, gives."""
    flat = {name: flat_settings(resolved.settings) for name, resolved in sources.items()}
    rows = []
    for key in LEAVES:
        if key == "data.dataset":
            continue
        cells = [
            code(shown(flat[name][key])) if resolved.origins[key] == f"{kind} {name}" else ""
            for name, resolved in sources.items()
        ]
        if any(cells):
            rows.append([code(key), *cells])
    return table(["Setting", *sources], rows)


def configuration() -> str:
    """Every setting with type, default, range and meaning, a table per section; what presets change."""
    head = ("Setting", "Type", "Default", "Range", "Meaning")
    lines = [
        "",
        "## General",
        *table(head, [setting_row(key) for key in Settings.model_fields if key in LEAVES]),
    ]
    for section, field in SECTIONS.items():
        keys = [key for key in LEAVES if key.rpartition(".")[0] == section]
        lines += [
            "",
            f"{'##' if '.' not in section else '###'} `{section}`",
            "",
            f"{field.annotation.__doc__}",
        ]
        lines += table(head, [setting_row(key) for key in keys]) if keys else []
    presets = changes({name: resolve_settings(name, None) for name in preset_names()}, "preset")
    changing = [name for name in recipe_names() if name != "calr"]
    recipes = changes({name: resolve_settings(None, None, recipe=name) for name in changing}, "recipe")
    family = {name: resolve_settings(None, None, [f"model.arch={name}_small"]) for name in family_names()}
    lines += [FAMILIES, *changes(family, "family"), PRESETS, *presets, RECIPES, *recipes]
    return INTRODUCTION + "\n".join(lines) + "\n"


def walk_commands(command: Any, path: str = "calr") -> Iterator[tuple[str, Any]]:
    """Every command that does something, with how it is called."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
    for name, sub in (inner or {}).items():
        yield from walk_commands(sub, f"{path} {name}")


def setting_of(param: Any, command: str) -> str | None:
    """The dotted key of the setting that an option is; None if it is none."""
    if param.rich_help_panel != "Settings" or param.name not in SETTING_FLAGS:
        return None
    return SETTING_FLAGS[param.name][0].format(stage=STAGES.get(command, "evaluation"))


def type_of(param: Any, hint: Any, key: str | None) -> str:
    """What an option or argument takes, in words."""
    if getattr(param, "is_flag", False):
        return "flag"
    if key is not None:
        return type_words(LEAVES[key])
    while parts := [part for part in get_args(hint) if part is not NoneType]:
        hint = parts[0]
    word = {**TYPE_WORDS, Path: "path"}[hint]
    return f"{word}, repeatable" if param.nargs == -1 or getattr(param, "multiple", False) else word


def default_of(param: Any, key: str | None) -> str:
    if param.required:
        return "required"
    given = key if key is not None else param.default
    return code(str(given)) if given not in (None, False, ()) else ""


def parameter_rows(command: Any) -> Iterator[tuple[str, list[str]]]:
    """The panel of ``--help`` and the row of each argument and option."""
    hints = get_type_hints(command.callback)
    for param in command.params:
        is_option = param.param_type_name == "option"
        key = setting_of(param, command.name)
        kind = type_of(param, hints[param.name], key)
        names = ", ".join(map(code, param.opts)) if is_option else ""
        metavar = "" if kind == "flag" else code(param.metavar or param.name.upper())
        panel = (param.rich_help_panel or "Options") if is_option else "Arguments"
        cells = [f"{names} {metavar}".strip(), kind, default_of(param, key), param.help]
        yield panel, [cell.replace("|", r"\|").replace("<", r"\<") for cell in cells]


def plain(markup: str) -> str:
    return Text.from_markup(markup).plain


def command_section(path: str, command: Any) -> Iterator[str]:
    """The lines about one command: what ``--help`` says."""
    rows = list(parameter_rows(command))
    arguments = [f" {cells[0]}" for panel, cells in rows if panel == "Arguments"]
    usage = f"{path} [OPTIONS]{''.join(arguments)}".replace("`", "")
    yield from ("", f"## `{path}`", "", plain(command.help), "", "```text", usage, "```")
    for panel in dict.fromkeys(panel for panel, _ in rows):
        head = (panel, "Type", "Default", "Meaning")
        yield from table(head, [cells for other, cells in rows if other == panel])
    examples = plain(command.epilog).splitlines()[1:]
    yield from ("", "```bash", *(line.strip() for line in examples), "```")


def commands() -> str:
    """Every command with its usage, arguments, options and examples."""
    sections = [command_section(*found) for found in walk_commands(typer.main.get_command(app))]
    return COMMANDS + "\n".join(line for section in sections for line in section) + "\n"


def layers() -> list[list[str]]:
    """The layers of the one-way order, top first, each with its rooms and single modules."""
    with (DOCS.parent / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (found,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    return [layer.split(" | ") for layer in found if layer != "__main__"]


def order() -> str:
    """The one-way order that import-linter checks."""
    words = " -> ".join(" | ".join(names) for names in layers())
    return f"```text\n{fill(words, 110, subsequent_indent='    ')}\n```\n"


def docstring(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def file_row(file: Path) -> list[str]:
    name = file.relative_to(PACKAGE).as_posix()
    job = docstring(file).partition("\n")[0].removesuffix(".").replace("|", r"\|")
    return [f"[`{name}`](../calr_cli/{name})", job.replace("``", "`")]


def rooms() -> str:
    """Every file with the first line of its docstring, room by room, from the errors up to the commands."""
    names = [name for layer in reversed(layers()) for name in layer]
    single = [PACKAGE / f"{name}.py" for name in names if not (PACKAGE / name).is_dir()]
    lines = ["### Modules outside the rooms", *table(("file", "job"), [file_row(file) for file in single])]
    for name in names:
        for room in sorted((PACKAGE / name).rglob("__init__.py")):
            files = sorted(file for file in room.parent.glob("*.py") if not file.name.startswith("__"))
            title = room.parent.relative_to(PACKAGE).as_posix()
            lines += ["", f"### `{title}/`", "", docstring(room).replace("``", "`")]
            lines += table(("file", "job"), [file_row(file) for file in files])
    return "\n".join(lines) + "\n"


def architecture() -> str:
    """The page as written by hand, with the generated parts between their markers."""
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    for name, make in (("order", order), ("rooms", rooms)):
        begin, end = f"<!-- {name}: generated by docs/generate.py -->\n", f"<!-- end of {name} -->\n"
        before, rest = page.split(begin)
        page = f"{before}{begin}\n{make()}\n{end}{rest.split(end)[1]}"
    return page


PAGES: dict[str, Callable[[], str]] = {
    "architecture.md": architecture,
    "configuration.md": configuration,
    "commands.md": commands,
}
"""File name -> what makes its text."""


def main(arguments: Sequence[str] | None = None, folder: Path = DOCS) -> int:
    """Write the pages into ``folder``; with ``--check`` only compare. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if a page differs from the code"
    )
    check = parser.parse_args(arguments).check
    stale = 0
    for name, make in PAGES.items():
        page = folder / name
        text = make()
        if page.is_file() and page.read_text(encoding="utf-8") == text:
            continue
        if check:
            stale = 1
            sys.stderr.write(f"docs/{name} is out of step with the code; run: python docs/generate.py\n")
        else:
            with atomic_write(page) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return stale


if __name__ == "__main__":
    sys.exit(main())
