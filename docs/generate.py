"""Write the pages that are made from the code, or with ``--check`` tell which are out of step with it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from calr_cli.config.loading import preset_names, resolve_settings
from calr_cli.config.schema import Settings
from calr_cli.config.wording import LEAVES, SECTIONS, range_words, shown, type_words
from calr_cli.files import atomic_write

DOCS = Path(__file__).resolve().parent

INTRODUCTION = """\
# Configuration

This page is generated from `calr_cli/config/schema.py` by `python docs/generate.py`; do not edit it.

A value comes from the last of these that gives one:

1. the default in the tables below;
2. the preset of the dataset (`-d veri`), or the file of `--config FILE`, which replaces the preset;
3. `--set KEY=VALUE`, as often as needed, with the names below: `--set inter.memory.temperature=0.07`;
4. a flag of its own, such as `-b/--batch-size`.

`--print-config` shows the result and where each value came from. A file nests the dotted names, as the
presets do (`calr presets show veri`). `null` means that the value is worked out as the table says. Every
wrong or unknown setting is reported at once, one line each.

The word in brackets is the source of the default: *paper* (arXiv 2403.16450), *release* (the authors'
program), *field* (usual in re-identification), *ours* (chosen here).
"""

PRESETS = """
## What the presets change

Datasets without a preset, your own among them, use the defaults. An empty cell is the default.
"""


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
        code(shown(field.default)),
        range_words(field),
        str(field.description),
    ]


def preset_rows() -> Iterator[list[str]]:
    presets = {name: resolve_settings(name, None) for name in preset_names()}
    for key in LEAVES:
        if key == "data.dataset":
            continue
        cells = []
        for resolved in presets.values():
            value: object = resolved.settings
            for part in key.split("."):
                value = getattr(value, part)
            cells.append(code(shown(value)) if resolved.origins[key] != "default" else "")
        if any(cells):
            yield [code(key), *cells]


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
    changes = table(["Setting", *preset_names()], list(preset_rows()))
    return INTRODUCTION + "\n".join(lines) + "\n" + PRESETS + "\n".join(changes) + "\n"


PAGES: dict[str, Callable[[], str]] = {"configuration.md": configuration}
"""File name -> what makes its text."""


def main(arguments: Sequence[str] | None = None, folder: Path = DOCS) -> int:
    """Write the pages into ``folder``; with ``--check`` only compare. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if a page is out of step"
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
