"""``calr runs``: which runs there are."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calr_cli.cli import options
from calr_cli.cli.console import print_json, print_table, reporter_for
from calr_cli.errors import CalrError, CheckpointError

if TYPE_CHECKING:
    from calr_cli.runs.listing import RunSummary


def runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER]...", help="where to look, at any depth; default: runs"),
    ] = None,
    json: options.Json = False,
) -> None:
    """List runs: dataset, stage, epochs, mAP, when they began and wrote last, and whether they are finished.

    The run that wrote last is the last one. A run that is not finished is at work, or was interrupted.

    Examples:
        calr runs
        calr runs runs/veri ../elsewhere
    """
    from calr_cli.runs.find import RUNS
    from calr_cli.runs.listing import find_runs, summarise
    from calr_cli.runs.places import remembered_runs

    reporter = reporter_for(False)
    for folder in folders or ():
        if not folder.is_dir():
            raise CheckpointError(f"no folder {folder}", "Give a folder with runs in it")
    summaries = []
    elsewhere = [run for stage in ("intra", "inter") for run in remembered_runs(None, stage)]
    for path in find_runs(folders or [RUNS, *elsewhere]):
        try:
            summaries.append(summarise(path))
        except CalrError as error:
            reporter.warning(f"{error.problems[0]}: left out")
    summaries.sort(key=lambda run: (run.written, str(run.run)))
    if json:
        print_json({"runs": [asdict(run) for run in summaries]})
    elif summaries:
        show_runs(summaries)
        if open_runs := [run for run in summaries if not run.finished]:
            typer.echo(f"not finished; if it is not at work: {open_runs[-1].resume}", err=True)
    else:
        where = ", ".join(map(str, folders or [RUNS]))
        reporter.note(f"no run in {where}; to begin one: calr train -d NAME")


def show_runs(runs: list[RunSummary]) -> None:
    """A row for each run."""
    now = datetime.now().astimezone()
    print_table(
        ["dataset", "stage", "epochs", "mAP", "begun", "last written", "state", "run"],
        [
            [
                run.dataset,
                run.stage,
                f"{run.epochs_done}/{run.epochs}"
                + (f" of camera {run.camera}" if run.camera is not None else ""),
                quality(run),
                f"{run.begun.astimezone():%Y-%m-%d %H:%M}",
                ago(now - run.written),
                "finished" if run.finished else "not finished",
                str(run.run),
            ]
            for run in runs
        ],
        numbers_from=8,
        fold=False,
    )


def quality(run: RunSummary) -> str:
    """``61.3``, or ``58.0 @30`` where the training looked after 30 epochs and nobody evaluated the model."""
    if run.mAP is None:
        return "-"
    return f"{run.mAP:.1f}" + ("" if run.mAP_epoch is None else f" @{run.mAP_epoch}")


def ago(time: timedelta) -> str:
    """``5 min ago``."""
    seconds = time.total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} ago"
    return "now"
