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
    """Receives everything that library code reports to the user while it works."""

    def stage(self, title: str) -> None:
        """Report that a new part of the work begins."""
        ...

    def progress(
        self, title: str, total: int, unit: str = "", done: int = 0
    ) -> AbstractContextManager[Progress]:
        """Report that a step of ``total`` ``unit`` (images, ...) begins, of which ``done`` are done."""
        ...

    def metric(self, row: EpochFigures) -> None:
        """Report the figures of one epoch."""
        ...

    def note(self, text: str) -> None:
        """Report one line that the user should see."""
        ...

    def warning(self, text: str) -> None:
        """Report one line about something that the user probably did not intend."""
        ...


class _NoProgress:
    def advance(self, count: int = 1, **figures: float) -> None:
        pass


class SilentReporter:
    """A reporter that ignores everything, for use of the library from Python."""

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
