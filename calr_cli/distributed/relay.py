"""Carries the messages of all processes to the one process that owns the terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

from calr_cli.events import Progress, Reporter, SilentReporter
from calr_cli.figures import EpochFigures

TICK = 0.1
"""Seconds between two messages of a progress, so that a fast loop does not wait for the terminal."""


@dataclass(frozen=True)
class Said:
    """A call of a reporter, or of progress ``step``: ``begin``, ``advance``, ``end``, ``break``."""

    what: str
    arguments: tuple[Any, ...]
    step: int = 0


class OnlyWarnings(SilentReporter):
    """A reporter that passes on only warnings, for ranks that would repeat rank 0."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def warning(self, text: str) -> None:
        """See `Reporter.warning`."""
        self._reporter.warning(text)


class Relay:
    """A reporter whose messages a `Replay` in another process repeats.

    Args:
        send: Function that sends a message to that process.
        prefix: Text before titles that says which process is at work.
    """

    def __init__(self, send: Callable[[Said], None], prefix: str = "") -> None:
        self._send, self._prefix, self._numbers = send, prefix, count()

    def stage(self, title: str) -> None:
        """See `Reporter.stage`."""
        self._send(Said("stage", (self._prefix + title,)))

    def metric(self, row: EpochFigures) -> None:
        """See `Reporter.metric`."""
        self._send(Said("metric", (row,)))

    def note(self, text: str) -> None:
        """See `Reporter.note`."""
        self._send(Said("note", (text,)))

    def warning(self, text: str) -> None:
        """See `Reporter.warning`."""
        self._send(Said("warning", (text,)))

    @contextmanager
    def progress(self, title: str, total: int, unit: str = "", done: int = 0) -> Iterator[Progress]:
        """See `Reporter.progress`."""
        step = next(self._numbers)
        self._send(Said("begin", (self._prefix + title, total, unit, done), step))
        progress = _RelayedProgress(self._send, step)
        try:
            yield progress
            progress.flush()
        except BaseException:
            self._send(Said("break", (), step))
            raise
        self._send(Said("end", (), step))


class _RelayedProgress:
    """A progress that sends its accumulated steps every `TICK` seconds."""

    def __init__(self, send: Callable[[Said], None], step: int) -> None:
        self._send, self._step = send, step
        self._done, self._figures, self._sent = 0, dict[str, float](), time.monotonic()
        self._lock = threading.Lock()  # images are decoded, and counted, by several threads

    def advance(self, count: int = 1, **figures: float) -> None:
        """See `Progress.advance`."""
        with self._lock:
            self._done += count
            self._figures |= figures
            if time.monotonic() - self._sent < TICK:
                return
        self.flush()

    def flush(self) -> None:
        """Send the accumulated steps."""
        with self._lock:
            done, figures = self._done, self._figures
            self._done, self._figures, self._sent = 0, {}, time.monotonic()
        if done or figures:
            self._send(Said("advance", (done, figures), self._step))


class Replay:
    """Repeats on ``reporter`` the messages of all ranks' relays, of which many may have a progress."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._steps: dict[tuple[int, int], tuple[AbstractContextManager[Progress], Progress]] = {}
        self._first_said: dict[str, int] = {}

    def __call__(self, rank: int, said: Said) -> None:
        """Repeat one message; a note or warning that another rank already sent is not repeated."""
        key = rank, said.step
        if said.what == "begin":
            context = self._reporter.progress(*said.arguments)
            self._steps[key] = context, context.__enter__()
        elif said.what == "advance":
            done, figures = said.arguments
            self._steps[key][1].advance(done, **figures)
        elif said.what == "end":
            self._steps.pop(key)[0].__exit__(None, None, None)
        elif said.what == "break":
            self._break(self._steps.pop(key)[0])
        elif said.what not in ("note", "warning") or (
            self._first_said.setdefault(said.arguments[0], rank) == rank
        ):
            getattr(self._reporter, said.what)(*said.arguments)

    def close(self) -> None:
        """End every open progress, because killed processes do not end theirs."""
        for context, _ in self._steps.values():
            self._break(context)
        self._steps.clear()

    @staticmethod
    def _break(context: AbstractContextManager[Progress]) -> None:
        """End a progress with an exception, so that it does not look complete."""
        with suppress(_UnfinishedError):
            context.__exit__(_UnfinishedError, _UnfinishedError(), None)


class _UnfinishedError(Exception):
    """A step that another process did not finish."""
