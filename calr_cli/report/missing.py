"""Parts that a report cannot show, and the reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from calr_cli.errors import CalrError
from calr_cli.events import Reporter

T = TypeVar("T")


@dataclass(frozen=True)
class Missing:
    """The reason why there is nothing to show, in sentences."""

    reason: str


def or_missing(make: Callable[[], T], reporter: Reporter | None = None) -> T | Missing:
    """The result of ``make``; an error becomes sentences of the report, and a warning to ``reporter``."""
    try:
        return make()
    except CalrError as error:
        reason = " ".join(_sentence(line) for line in error.lines())
        if reporter is not None:
            reporter.warning(reason)
        return Missing(reason)


def _sentence(line: str) -> str:
    """A line of an error as a sentence; a line that begins with a path or a name keeps its first letter."""
    begin = line[:1].upper() if line.partition(" ")[0].isalpha() else line[:1]
    return f"{begin}{line[1:].rstrip('.')}."
