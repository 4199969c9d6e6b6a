"""The page of the architecture describes each file by its docstring and keeps the parts written by hand."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from calr_cli import evaluation, types
from tests.docs.pages import REPOSITORY

PAGE = REPOSITORY / "docs" / "architecture.md"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", REPOSITORY / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_and_rooms_are_described_by_their_docstrings() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert types.__doc__
    assert evaluation.__doc__
    first = types.__doc__.splitlines()[0].rstrip(".")
    assert f"| [`types.py`](../calr_cli/types.py) | {first} |\n" in page
    assert f"### `evaluation/`\n\n{evaluation.__doc__}\n\n| file | job |\n" in page


def test_every_file_and_room_has_a_description(generate: ModuleType) -> None:
    assert not re.findall(r"^\| \[.*\| *\|$", generate.rooms(), re.MULTILINE)
    assert not re.findall(r"^### .*\n\n\n", generate.rooms(), re.MULTILINE)


def test_the_order_is_the_one_that_is_checked(generate: ModuleType) -> None:
    names = re.findall(r"\w+", generate.order().replace("```text", ""))
    assert names[:2] == ["cli", "report"]
    assert names[-1] == "errors"
    package = REPOSITORY / "calr_cli"
    rooms = {init.parent.name for init in package.glob("*/__init__.py")}
    modules = {file.stem for file in package.glob("*.py") if not file.name.startswith("__")}
    assert set(names) == rooms | modules


def test_a_stale_description_is_told_and_mended(
    generate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main([], tmp_path) == 0
    page = tmp_path / PAGE.name
    whole = page.read_text(encoding="utf-8")
    assert whole == PAGE.read_text(encoding="utf-8")
    page.write_text(re.sub(r"(?<=types\.py\) \| ).*(?= \|)", "Something else", whole), encoding="utf-8")
    assert generate.main(["--check"], tmp_path) == 1
    told = capsys.readouterr().err
    assert told == "docs/architecture.md is out of step with the code; run: python docs/generate.py\n"
    assert generate.main([], tmp_path) == 0
    assert page.read_text(encoding="utf-8") == whole
