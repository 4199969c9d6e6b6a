"""The interface through which library code reports to the user; it never writes to the terminal."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from calr_cli.figures import EpochFigures


class Progress(Protocol):
    """A running count of one long step."""

    def advance(self, count: int = 1, **figures: float) -> None:
        """Add ``count`` to the steps done and show the latest ``figures`` (loss=..., ...)."""
        ...


class Reporter(Protocol):
    """What a pipeline tells its user while it works."""

    def stage(self, title: str) -> None:
        """A new part of the work begins."""
        ...

    def progress(
        self, title: str, total: int, unit: str = "", done: int = 0
    ) -> AbstractContextManager[Progress]:
        """A long step of ``total`` ``unit`` (images, iterations, ...) begins, ``done`` of it before."""
        ...

    def metric(self, row: EpochFigures) -> None:
        """One epoch's figures."""
        ...

    def note(self, text: str) -> None:
        """One line the user should see."""
        ...

    def warning(self, text: str) -> None:
        """One line about something that is probably not as intended."""
        ...


class _NoProgress:
    def advance(self, count: int = 1, **figures: float) -> None:
        pass


class SilentReporter:
    """Says nothing: for use of the library from Python."""

    def stage(self, title: str) -> None:
        """See `Reporter.stage`."""

    def progress(
        self, title: str, total: int, unit: str = "", done: int = 0
    ) -> AbstractContextManager[Progress]:
        """See `Reporter.progress`."""
        return nullcontext(_NoProgress())

    def metric(self, row: EpochFigures) -> None:
        """See `Reporter.metric`."""

    def note(self, text: str) -> None:
        """See `Reporter.note`."""

    def warning(self, text: str) -> None:
        """See `Reporter.warning`."""
