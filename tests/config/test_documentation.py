from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import typer

from calr_cli.cli.app import app
from calr_cli.config.loading import preset_names
from calr_cli.config.wording import LEAVES

GENERATE = Path(__file__).resolve().parents[2] / "docs" / "generate.py"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", GENERATE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_in_step_with_the_code(
    generate: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_page_is_told_and_left_alone(
    generate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main([], tmp_path) == 0
    page = tmp_path / "configuration.md"
    page.write_text("old")
    assert generate.main(["--check"], tmp_path) == 1
    assert capsys.readouterr().err == (
        "docs/configuration.md is out of step with the code; run: python docs/generate.py\n"
    )
    assert page.read_text() == "old"
    assert generate.main([], tmp_path) == 0
    assert generate.main(["--check"], tmp_path) == 0


def test_the_page_names_every_setting_and_preset(generate: ModuleType) -> None:
    page = generate.configuration()
    assert all(page.count(f"\n| `{key}` | ") >= 1 for key in LEAVES)
    assert f"| Setting | {' | '.join(preset_names())} |" in page


def test_the_page_names_every_command_and_option(generate: ModuleType) -> None:
    page = generate.commands()
    for path, command in generate.walk_commands(typer.main.get_command(app)):
        section = page.partition(f"\n## `{path}`\n")[2].partition("\n## ")[0]
        flags = [flag for param in command.params for flag in param.opts if flag.startswith("-")]
        assert flags or path == "calr presets show"
        assert all(f"`{flag}`" in section for flag in flags)


def test_types_and_defaults_are_those_of_the_setting(generate: ModuleType) -> None:
    page = generate.commands()
    assert "| `-b`, `--batch-size` `N` | whole number | `intra.batch_size` | " in page
    assert "| `-k`, `--top` `N` | whole number | `10` | " in page
    assert "| `--resume` `FILE` | text | required | " in page
    assert r"| `--gallery` `DIR\|FILE` | text, repeatable | required | " in page
