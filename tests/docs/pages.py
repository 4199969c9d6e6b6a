"""The pages of the documentation, and what is in their fenced blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])

FENCE = re.compile(r"^ *```(.*)$")


@dataclass(frozen=True)
class Line:
    """A line of a fenced block; ``language`` is what the fence says."""

    number: int
    language: str
    text: str


def name(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def fenced_lines(page: Path) -> Iterator[Line]:
    language: str | None = None
    for number, text in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if fence := FENCE.match(text):
            language = fence[1].strip() if language is None else None
        elif language is not None:
            yield Line(number, language, text)


def prose(page: Path) -> str:
    """The page without its fenced blocks, as many lines long."""
    fenced = {line.number for line in fenced_lines(page)}
    lines = page.read_text(encoding="utf-8").splitlines()
    return "\n".join("" if number in fenced else text for number, text in enumerate(lines, start=1))


def files_of(page: Path) -> dict[str, str]:
    """The Python files that a page shows, by name: blocks that begin with the name as a comment."""
    files: dict[str, list[str]] = {}
    current: list[str] = []
    for line in fenced_lines(page):
        if line.language == "python" and (named := re.fullmatch(r"# (\w+\.py)", line.text)):
            current = files.setdefault(named[1], [])
        elif line.language == "python":
            current.append(line.text)
    return {name: "\n".join(lines) + "\n" for name, lines in files.items()}
