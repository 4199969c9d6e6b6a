"""The command line in this process, in a folder of its own, and a made-up VeRi folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import calr_cli
from calr_cli.cli.app import app
from tests.support.made_up import make_layout


@dataclass(frozen=True)
class Answer:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def errors(self) -> list[str]:
        """The error lines; nothing else may be on stderr but what was said before them."""
        return [line for line in self.stderr.splitlines() if line.startswith("error: ")]


Calr = Callable[..., Answer]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs go below the current folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", str(Path(calr_cli.__file__).parents[1]))  # for a checkout not installed
    return tmp_path / "here"


@pytest.fixture
def calr() -> Calr:
    def call(*arguments: object) -> Answer:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception  # a traceback for the user
        return Answer(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def veri_root(tmp_path: Path) -> Path:
    make_layout("veri", tmp_path / "data", identities=12)
    return tmp_path / "data"


@pytest.fixture
def veri(veri_root: Path, calr: Calr) -> str:
    """The name of a prepared dataset."""
    assert calr("prepare-data", "--root", veri_root, "--quiet").exit_code == 0
    return "veri"
