"""Every ``--help`` ends with examples, and these could be typed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from rich.text import Text

from calr_cli.cli.app import app, in_help
from tests.cli.conftest import Calr

ROOT: Any = typer.main.get_command(app)


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, sub in getattr(command, "commands", {}).items():
        yield from walk(sub, (*path, name))


def examples(path: tuple[str, ...]) -> list[str]:
    """The last lines of ``--help``, without their heading."""
    command = ROOT
    for name in path:
        command = command.commands[name]
    return [line.strip() for line in Text.from_markup(command.epilog).plain.splitlines()[1:]]


def parse(line: str) -> None:
    """What happens before a command runs: its options exist, its arguments are there."""
    program, *words = shlex.split(line, comments=True)
    assert program == "calr"
    command = ROOT
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)


@pytest.mark.parametrize("path", list(walk(ROOT)), ids=" ".join)
def test_help_ends_with_examples_that_parse(
    path: tuple[str, ...], calr: Calr, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = examples(path)
    assert lines
    assert all(line.startswith(" ".join(("calr", *path))) for line in lines)
    for line in lines:
        parse(line)
    monkeypatch.setenv("COLUMNS", "80")
    shown = [line.strip() for line in calr(*path, "--help").stdout.rstrip().splitlines()]
    assert shown[-len(lines) :] == lines  # none is broken in two


@pytest.mark.parametrize("line", ["calr train --epoch 3", "calr search a.jpg", "calr labels shuffle x"])
def test_an_example_that_could_not_be_typed_is_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"--epoch|resume|shuffle"):
        parse(line)


def test_brackets_are_text() -> None:
    begins, ends = in_help("Take [bold] images.\n\nExample:\n    calr prepare-data --pattern '[a-z]'\n")
    assert Text.from_markup(begins).plain == "Take [bold] images."
    assert Text.from_markup(ends).plain == "Example:\n    calr prepare-data --pattern '[a-z]'"
