"""The ``calr`` command: its subcommands, and the one place where errors become lines."""

from __future__ import annotations

import inspect
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, ParamSpec

import typer
from rich.markup import escape

from calr_cli import __version__
from calr_cli.allocation import is_gpu_full, keep_freed_memory
from calr_cli.cli.arguments import Command
from calr_cli.cli.cluster import cluster
from calr_cli.cli.compare import compare
from calr_cli.cli.demo import demo
from calr_cli.cli.embed import embed
from calr_cli.cli.evaluate import evaluate
from calr_cli.cli.export import export
from calr_cli.cli.fetch_pretrained import fetch_pretrained
from calr_cli.cli.gallery import add as add_to_gallery
from calr_cli.cli.gallery import (
    assign,
    create,
    forget,
    list_identities,
    merge,
    rename,
    show,
    split,
)
from calr_cli.cli.labels import diff_labels, import_labels, score_labels
from calr_cli.cli.prepare_data import prepare_data
from calr_cli.cli.presets import list_presets, show_preset
from calr_cli.cli.ranks import is_main
from calr_cli.cli.report import report
from calr_cli.cli.runs import runs
from calr_cli.cli.search import search
from calr_cli.cli.streams import open_closed_streams
from calr_cli.cli.train import train
from calr_cli.cli.train_inter import train_inter
from calr_cli.cli.train_intra import train_intra
from calr_cli.errors import CalrError
from calr_cli.runs.lock import release_all
from calr_cli.threads import limit_threads, spin_briefly

Parameters = ParamSpec("Parameters")

EXIT_PROBLEM, EXIT_INTERRUPTED = 1, 130


def guarded(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """The command, with an exit code and lines for whatever its user can mend; the error boundary."""

    @wraps(command)
    def boundary(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            threads = kwargs.get("threads")  # before the command loads the libraries that start them
            limit_threads(threads if isinstance(threads, int) else None)
            command(*args, **kwargs)
            sys.stdout.flush()  # a full disk or a closed pipe shows here and not after the end
        except KeyboardInterrupt as error:
            for number in (signal.SIGINT, signal.SIGTERM):  # an impatient second one ends at once
                signal.signal(number, signal.SIG_DFL)
            raise stopped(["interrupted"], error, EXIT_INTERRUPTED) from None
        except CalrError as error:
            raise stopped([f"error: {line}" for line in error.lines()], error) from None
        except BrokenPipeError:
            raise  # Typer ends quietly: who reads has read enough
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise stopped([f"error: {where}{error.strerror or error}"], error) from None
        except RuntimeError as error:
            if not is_gpu_full(error):
                raise
            gpu = re.search(r"GPU (\d+)", str(error))
            where = f"GPU {gpu[1]}" if gpu else "the GPU"
            hint = "Lower batch_norm_group_size (training) or evaluation.batch_size (extraction)"
            raise stopped([f"error: the memory of {where} is full. {hint}"], error) from None
        finally:
            release_all()

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


def in_help(docstring: str | None) -> tuple[str, str]:
    """What ``--help`` begins with, and what it ends with: the examples, the docstring's last section."""
    text = escape(inspect.cleandoc(docstring or ""))  # brackets are no markup
    begins, *examples = re.split(r"\n\n(?=Examples?:\n)", text, maxsplit=1)
    return begins, "".join(examples)


def add(to: typer.Typer, name: str, command: Callable[..., None]) -> None:
    """Make a function a command."""
    begins, ends = in_help(command.__doc__)
    to.command(name, cls=Command, help=begins, epilog=ends)(guarded(command))


def group(name: str, docstring: str) -> typer.Typer:
    """A command that has commands."""
    begins, ends = in_help(docstring)
    made = typer.Typer(no_args_is_help=True, help=begins, epilog=ends)
    app.add_typer(made, name=name)
    return made


def root(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=show_version, is_eager=True)
    ] = False,
) -> None:
    r"""Train a re-identification model from camera images without identity labels.

    Examples:
        calr demo
        calr prepare-data --images photos/ --pattern 'cam(?P<camid>\d+)'
        calr train -d photos
        calr search --resume model.pth --gallery photos/ photos/cam1/8.jpg
    """


app = typer.Typer(name="calr", no_args_is_help=True, pretty_exceptions_enable=False)
begins, ends = in_help(root.__doc__)
app.callback(help=begins, epilog=ends)(root)
add(app, "prepare-data", prepare_data)
add(app, "fetch-pretrained", fetch_pretrained)
add(app, "train", train)
add(app, "train-intra", train_intra)
add(app, "train-inter", train_inter)
add(app, "evaluate", evaluate)
add(app, "report", report)
add(app, "runs", runs)
add(app, "embed", embed)
add(app, "search", search)
add(app, "compare", compare)
add(app, "cluster", cluster)
add(app, "export", export)
add(app, "demo", demo)
labels = group(
    "labels",
    """Local labels: take them over from elsewhere, measure and compare them.

    Example:
        calr labels score local_labels.csv -d veri
    """,
)
add(labels, "import", import_labels)
add(labels, "score", score_labels)
add(labels, "diff", diff_labels)
gallery = group(
    "gallery",
    """Identities that were seen before, kept in one file; search takes that file, too.

    Examples:
        calr gallery create shop.gallery --resume model.pth
        calr gallery assign shop.gallery today/ --add
    """,
)
add(gallery, "create", create)
add(gallery, "add", add_to_gallery)
add(gallery, "assign", assign)
add(gallery, "list", list_identities)
add(gallery, "show", show)
add(gallery, "merge", merge)
add(gallery, "split", split)
add(gallery, "rename", rename)
add(gallery, "forget", forget)
presets = group(
    "presets",
    """List and show the settings that come with the datasets.

    Example:
        calr presets show veri
    """,
)
add(presets, "list", list_presets)
add(presets, "show", show_preset)


def main() -> None:
    """Run the command line."""
    open_closed_streams()
    keep_freed_memory()
    spin_briefly()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how a cluster says that time is up
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
    app(prog_name="calr")
