"""The ``calr`` command: its subcommands, and the one place where errors become lines."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, ParamSpec

import typer

from calr_cli import __version__
from calr_cli.allocation import keep_freed_memory
from calr_cli.cli.compare import compare
from calr_cli.cli.demo import demo
from calr_cli.cli.embed import embed
from calr_cli.cli.evaluate import evaluate
from calr_cli.cli.fetch_pretrained import fetch_pretrained
from calr_cli.cli.labels import diff_labels, import_labels, score_labels
from calr_cli.cli.prepare_data import prepare_data
from calr_cli.cli.presets import list_presets, show_preset
from calr_cli.cli.ranks import is_main
from calr_cli.cli.report import report
from calr_cli.cli.search import search
from calr_cli.cli.train import train
from calr_cli.cli.train_inter import train_inter
from calr_cli.cli.train_intra import train_intra
from calr_cli.errors import CalrError

Parameters = ParamSpec("Parameters")

EXIT_PROBLEM, EXIT_INTERRUPTED = 1, 130


def guarded(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """The command, with whatever its user can mend told in lines and an exit code; the error boundary."""

    @wraps(command)
    def boundary(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()  # a full disk or a closed pipe shows here and not after the end
        except KeyboardInterrupt as error:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # an impatient second Ctrl-C ends at once
            raise stopped(["interrupted"], error, EXIT_INTERRUPTED) from None
        except CalrError as error:
            raise stopped([f"error: {line}" for line in error.lines()], error) from None
        except BrokenPipeError:
            raise  # Typer ends quietly: who reads has read enough
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise stopped([f"error: {where}{error.strerror or error}"], error) from None
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's, not imported for its name
                raise
            gpu = re.search(r"GPU (\d+)", str(error))
            where = f"GPU {gpu[1]}" if gpu else "the GPU"
            hint = "Lower batch_norm_group_size (training) or evaluation.batch_size (extraction)"
            raise stopped([f"error: the memory of {where} is full. {hint}"], error) from None

    return boundary


def stopped(lines: Sequence[str], error: BaseException, code: int = EXIT_PROBLEM) -> typer.Exit:
    """Say the lines, then what was noted on the error's way up (how to resume)."""
    who = "" if is_main() else f"rank {os.environ['RANK']}: "
    for line in (*lines, *getattr(error, "__notes__", ())):
        typer.echo(f"{who}{line}", err=True)
    return typer.Exit(code)


def show_version(asked: bool) -> None:
    """``--version``."""
    if asked:
        typer.echo(f"calr {__version__}")
        raise typer.Exit


app = typer.Typer(name="calr", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
labels = typer.Typer(
    no_args_is_help=True, help="Local labels: take them over from elsewhere, measure and compare them."
)
presets = typer.Typer(no_args_is_help=True, help="List and show the settings that come with the datasets.")


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=show_version, is_eager=True)
    ] = False,
) -> None:
    """Train a re-identification model from camera images without identity labels."""


app.command("prepare-data")(guarded(prepare_data))
app.command("fetch-pretrained")(guarded(fetch_pretrained))
app.command("train-intra")(guarded(train_intra))
app.command("train-inter")(guarded(train_inter))
app.command("train")(guarded(train))
app.command("evaluate")(guarded(evaluate))
app.command("embed")(guarded(embed))
app.command("search")(guarded(search))
app.command("compare")(guarded(compare))
app.command("demo")(guarded(demo))
app.command("report")(guarded(report))
app.add_typer(labels, name="labels")
labels.command("import")(guarded(import_labels))
labels.command("score")(guarded(score_labels))
labels.command("diff")(guarded(diff_labels))
app.add_typer(presets, name="presets")
presets.command("list")(guarded(list_presets))
presets.command("show")(guarded(show_preset))


def main() -> None:
    """Run the command line."""
    keep_freed_memory()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how a cluster says that time is up
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
    app(prog_name="calr")
