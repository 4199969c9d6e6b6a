"""What the terminal shows: progress and epoch tables on stderr, results on stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import RLock, Timer
from time import perf_counter
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from calr_cli.cli.epoch_table import cells_of, columns_of
from calr_cli.cli.ranks import is_main
from calr_cli.events import Progress, Reporter, SilentReporter
from calr_cli.figures import EpochFigures
from calr_cli.files import strict_json

PATIENCE = 2.0
"""Seconds after which a step is worth a line where there are no live bars."""

HEARTBEAT = 30.0
"""Seconds between two lines of a long step where there are no live bars."""


def console_on(stream: IO[str]) -> Console:
    """A console that neither wraps nor colours nor draws when ``stream`` is not a terminal."""
    terminal = stream.isatty()  # decided here: FORCE_COLOR must not put control characters into a log
    return Console(
        file=stream,
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        width=None if terminal else 10_000,
        highlight=False,
        markup=False,
        emoji=False,
    )


class RichReporter:
    """`events.Reporter` for people, on stderr; may be called from several threads.

    Args:
        quiet: Warnings only.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = console_on(sys.stderr)
        self.quiet = quiet
        self._columns: Mapping[str, int] | None = None
        self._bars: Bars | None = None
        self._steps = 0
        self._lock = RLock()

    def stage(self, title: str) -> None:
        """A heading."""
        self._say(title, style="bold")

    def note(self, text: str) -> None:
        """A line."""
        self._say(text)

    def warning(self, text: str) -> None:
        """A line that stands out; shown even if quiet."""
        self.console.print(f"warning: {text}", style="yellow", soft_wrap=not self.console.is_terminal)

    def metric(self, row: EpochFigures) -> None:
        """A row of the epoch table, below a header where the kind of row changes."""
        columns = columns_of(row)
        with self._lock:
            if columns is not self._columns:
                self._say("  ".join(f"{title:>{width}}" for title, width in columns.items()), style="bold")
                self._columns = columns
            cells = zip(cells_of(row), columns.values(), strict=True)
            self._say("  ".join(f"{cell:>{width}}" for cell, width in cells))

    def progress(
        self, title: str, total: int, unit: str = "", done: int = 0
    ) -> AbstractContextManager[Progress]:
        """A live bar; where there is no terminal, lines for steps that take long."""
        step = Step(title, total, unit, done)
        if self.quiet:
            return nullcontext(step)
        return self._live(step) if self.console.is_interactive else self._plain(step)

    def _say(self, text: str, style: str | None = None) -> None:
        if not self.quiet:
            self.console.print(text, style=style, soft_wrap=not self.console.is_terminal)

    @contextmanager
    def _live(self, step: Step) -> Iterator[Progress]:
        bars = self._shared_bars()
        task = bars.add_task(step.title, total=step.total or None, completed=step.done, state=step.state())
        step.on_advance = lambda: bars.update(task, completed=step.done, state=step.state())
        try:
            yield step
        finally:
            bars.remove_task(task)
            self._give_back_bars()

    def _shared_bars(self) -> Bars:
        """The live display: one at a time, a line in it for each step under way, whichever ends first."""
        with self._lock:
            self._steps += 1
            if self._bars is None:
                columns = (
                    SpinnerColumn(),
                    TextColumn("{task.description}"),
                    BarColumn(24),
                    TextColumn("{task.fields[state]}"),
                )
                self._bars = Bars(
                    *columns,
                    TimeRemainingColumn(compact=True),
                    console=self.console,
                    transient=True,
                    refresh_per_second=5,
                )
                self._bars.start()
            return self._bars

    def _give_back_bars(self) -> None:
        with self._lock:
            self._steps -= 1
            if self._bars is not None and not self._steps:
                self._bars.stop()
                self._bars = None

    @contextmanager
    def _plain(self, step: Step) -> Iterator[Progress]:
        said: list[float] = []

        def say() -> None:
            said.append(perf_counter())
            self._say(f"{step.title}: {step.state()}")

        def beat() -> None:
            if said and perf_counter() - said[-1] > HEARTBEAT:
                say()

        step.on_advance = beat
        timer = Timer(PATIENCE, say)  # the first `advance` of a step may take minutes to come
        timer.daemon = True
        timer.start()
        try:
            yield step
        finally:
            timer.cancel()
        if said:
            self._say(f"{step.title}: {step.summary()}")


def reporter_for(quiet: bool) -> Reporter:
    """A reporter for people; of the processes that torchrun started the first one speaks for all."""
    return RichReporter(quiet) if is_main() else SilentReporter()


class Step:
    """A running count that knows how to describe itself; `events.Progress`. ``done`` were done before."""

    def __init__(self, title: str, total: int, unit: str, done: int = 0) -> None:
        # A number of bytes says little to people.
        self.title, self.total, self.unit = title, total, unit
        self.done = self.before = done
        self.figures: dict[str, float] = {}
        self.began = perf_counter()
        self.on_advance: Callable[[], None] = lambda: None

    def advance(self, count: int = 1, **figures: float) -> None:
        """See `events.Progress.advance`."""
        self.done += count
        self.figures |= figures
        self.on_advance()

    def state(self) -> str:
        """``350/700 images, 57 images/s, loss 1.234``; a step without a unit has nothing to count."""
        if not self.unit:
            return "working"
        of = f"/{self._amount(self.total)}" if self.total else ""
        return ", ".join([f"{self._amount(self.done)}{of} {self._unit}".rstrip(), *self._details()])

    def summary(self) -> str:
        """``700 images in 12.3 s, 57 images/s, loss 1.234``."""
        seconds = perf_counter() - self.began
        done = f"{self._amount(self.done - self.before)} {self._unit} " if self.unit else ""
        return ", ".join([f"{done}in {seconds:.1f} s", *self._details()])

    @property
    def _unit(self) -> str:
        return "MB" if self.unit == "bytes" else self.unit

    def _amount(self, count: float) -> str:
        return (
            f"{count / 1e6:.1f}" if self.unit == "bytes" else f"{count:g}" if count < 10 else f"{count:.0f}"
        )

    def _details(self) -> list[str]:
        details = [f"{name} {value:.3f}" for name, value in self.figures.items()]
        if self.done > self.before and self.unit:
            per_second = (self.done - self.before) / max(perf_counter() - self.began, 1e-9)
            unit = SHORT.get(self.unit, self._unit)
            amount = per_second / 1e6 if self.unit == "bytes" else per_second
            rate = f"{amount:,.0f} {unit}/s" if amount >= 10 else f"{amount:.2g} {unit}/s"
            details.insert(0, rate)
        return details


SHORT = {"iterations": "it"}
"""Units as they are written in front of "/s"."""


def print_json(result: Mapping[str, Any]) -> None:
    """The result as the only thing on stdout: strict JSON, with null for a number that is none."""
    print_text(strict_json(result, default=str))


def print_text(text: str) -> None:
    """A result that is text, as it is; of the processes that torchrun started the first one prints it."""
    if is_main():
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int = 1, fold: bool = True
) -> None:
    """A result as a table; cells of ``numbers_from`` and later columns are aligned to the right.

    In a narrow terminal cells are folded; without ``fold`` lines go over its edge, and a path at their end
    can still be copied.
    """
    table = _plain_table(show_header=True)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place >= numbers_from else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    _show(table, None if fold else 10_000)


def print_paths(paths: Mapping[str, Any]) -> None:
    """The files and folders that a command leaves, one per line, a blank line before them."""
    table = _plain_table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, path in paths.items():
        table.add_row(name, str(path))
    print_text("")
    _show(table)


def _show(table: Table, width: int | None = None) -> None:
    console = console_on(sys.stdout)
    if width is not None:
        console.width = width
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print_text(line.rstrip())  # cells are padded to the width of their column


def _plain_table(*, show_header: bool) -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_header=show_header)
