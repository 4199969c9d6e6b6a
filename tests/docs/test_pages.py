"""What the pages name exists: files, functions, settings, flags, and the whole tree."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from calr_cli import __version__
from calr_cli.cli.app import app
from calr_cli.config.loading import flat_settings, resolve_settings
from calr_cli.config.wording import LEAVES, SECTIONS, shown
from tests.docs.pages import PAGES, REPOSITORY, name, prose

LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
SETTING = re.compile(
    r"`((?:data|model|augment|intra|inter|evaluation)\.(?!(?:pth|py|json|onnx)`)[a-z_0-9.]*[a-z0-9])`"
)
DEFAULT = re.compile(r"`([a-z_0-9.]+)` = `([^`]+)`")
COMMAND = re.compile(r"`(calr [^`]+)`")


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(match) for match in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for _, target in LINK.findall(prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_functions_are_in_the_files_they_are_linked_to(page: Path) -> None:
    missing = []
    for text, target in LINK.findall(prose(page)):
        found = re.fullmatch(r"`(\w+)`", text)
        if found and target.endswith(".py"):
            source = (page.parent / target).read_text(encoding="utf-8")
            defined = re.search(rf"^(?:def|class) {found[1]}\b", source, re.MULTILINE)
            if not defined and Path(target).stem != found[1]:
                missing.append((found[1], target))
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_exist_and_have_these_defaults(page: Path) -> None:
    text = prose(page)
    unknown = {key for key in SETTING.findall(text) if key not in LEAVES and key not in SECTIONS}
    assert not unknown
    for part in re.split(r"^(?=## )", text, flags=re.MULTILINE):
        recipe = re.match(r"## The recipe (\w+)", part)
        values = {key: field.default for key, field in LEAVES.items()}
        if recipe is not None:
            values = flat_settings(resolve_settings(None, None, recipe=recipe[1]).settings)
        for key, value in DEFAULT.findall(part):
            if key not in LEAVES:
                assert key == "k2", f"no setting {key}"  # the release's own name for the smallest cluster
                continue
            true = values[key]
            same = float(value) == true if isinstance(true, float) else value == shown(true)
            assert same, f"{key} is {true!r}, the page says {value}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_sentences_exist(page: Path) -> None:
    """Those in fenced blocks are run; of those in sentences the names and the flags are looked up."""
    commands = typer.main.get_command(app)
    for text in COMMAND.findall(prose(page)):
        words = shlex.split(text)[1:]
        command = commands
        while words and not words[0].startswith("-") and hasattr(command, "commands"):
            assert words[0] in command.commands, text
            command = command.commands[words.pop(0)]
        known = {flag for parameter in command.params for flag in parameter.opts} | {"--help"}
        assert not {word for word in words if word.startswith("-")} - known, text


def test_the_architecture_lists_every_file_once() -> None:
    page = REPOSITORY / "docs" / "architecture.md"
    row = re.compile(r"^\| \[`[^`]+`\]\(\.\./(calr_cli/[^)]+\.py)\) \|", re.MULTILINE)
    listed = row.findall(prose(page))
    files = REPOSITORY.glob("calr_cli/**/*.py")
    assert sorted(listed) == sorted(name(file) for file in files if not file.name.startswith("__"))


def test_the_errors_are_worded_as_the_quickstart_quotes_them() -> None:
    page = prose(REPOSITORY / "docs" / "quickstart.md")
    quoted = re.findall(r"^\| `([^`]+)`", page.partition("| the line says |")[2], re.MULTILINE)
    assert len(quoted) > 10
    sources = "".join(file.read_text(encoding="utf-8") for file in REPOSITORY.glob("calr_cli/**/*.py"))
    parts = [part.strip(" :") for line in quoted for part in re.split(r"\.\.\.|:", line)]
    assert not [part for part in parts if part not in sources]


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "license"} <= citation.keys()
    assert str(citation["version"]) == __version__
    assert f"## {__version__}\n" in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    paper = citation["preferred-citation"]
    assert {"type", "title", "authors", "year"} <= paper.keys()
    assert [author["family-names"] for author in paper["authors"]] == ["Li", "Wu", "Huang", "Zhou", "Wang"]
