"""What every command refuses, whichever option it is given by."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from calr_cli.cli.app import app
from tests.cli.conftest import Calr


def commands() -> dict[tuple[str, ...], Any]:
    """Words -> command, of all there are."""
    root: Any = typer.main.get_command(app)
    found: dict[tuple[str, ...], Any] = {}
    for name, command in root.commands.items():
        inner = getattr(command, "commands", None)
        found |= {(name,): command} if inner is None else {(name, n): c for n, c in inner.items()}
    return found


ALL = [
    (words, parameter)
    for words, command in commands().items()
    for parameter in command.params
    if not getattr(parameter, "is_flag", False)
]


def needed(words: tuple[str, ...], without: str) -> list[str]:
    """Values for what the command cannot do without."""
    command = commands()[words]
    found: list[str] = []
    for parameter in command.params:
        if parameter.required and parameter.name != without:
            found += [*parameter.opts[:1], "x"] if parameter.param_type_name == "option" else ["x"]
    return found


def given(parameter: Any, value: str) -> list[str]:
    return [parameter.opts[-1], value] if parameter.param_type_name == "option" else [value]


@pytest.mark.parametrize(("words", "parameter"), ALL, ids=str)
def test_nothing_is_empty(calr: Calr, words: tuple[str, ...], parameter: Any) -> None:
    """As a shell writes a variable that is not set: as a path it would be the current folder."""
    answer = calr(*words, *needed(words, parameter.name), *given(parameter, ""))
    assert (answer.exit_code, answer.stdout) == (1, "")
    (line,) = answer.stderr.splitlines()
    assert line.endswith(" is empty. Is a variable of the shell not set?")
    assert parameter.param_type_name == "argument" or f"error: {parameter.opts[-1]} " in line


@pytest.mark.parametrize(
    ("words", "parameter"),
    [(w, p) for w, p in ALL if p.param_type_name == "option"],
    ids=str,
)
def test_an_option_counts_every_time_or_is_given_once(
    calr: Calr, words: tuple[str, ...], parameter: Any
) -> None:
    answer = calr(*words, *needed(words, parameter.name), *(2 * given(parameter, "7")))
    lines = answer.stderr.splitlines()
    refused = f"error: {max(parameter.opts, key=len)} is given twice. Give it once"
    assert (lines == [refused]) != parameter.multiple


def test_by_whichever_name(calr: Calr) -> None:
    answer = calr(
        "train-inter", "-d", "veri", "--dataset=market1501", "--quiet", "--quiet", "-b", "1", "-b", "2", "-b3"
    )
    assert answer.exit_code == 1
    assert answer.stderr.splitlines() == [
        "error: --dataset is given twice. Give it once",
        "error: --batch-size is given 3 times. Give it once",
    ]


def test_what_typer_says_stays(calr: Calr) -> None:
    assert "No such option" in calr("compare", "--nope").stderr
    assert "Missing argument" in calr("compare", "--resume", "x").stderr
    assert calr("compare", "--help", "--help").exit_code == 0
