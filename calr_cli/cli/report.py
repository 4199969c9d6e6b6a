"""``calr report``: runs as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calr_cli.cli import completion, options
from calr_cli.cli.console import print_json, print_paths, reporter_for
from calr_cli.cli.request import Machine


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="run folders, finished or not; the others are compared with the first",
            autocompletion=completion.runs,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="the page to write; default: report.html in the run folder, of several runs in this folder",
            rich_help_panel="Where",
        ),
    ] = None,
    gpus: options.Gpus = None,
    device: options.Device = None,
    threads: options.Threads = None,
    root: options.Root = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write one HTML file that shows runs: curves, ranked lists, clusters, a map of features, differences.

    Examples:
        calr report runs/shop/inter/20260131-120000
        calr report one/inter two/inter --output compared.html
    """
    from calr_cli.report.page import write_report
    from calr_cli.report.record import read_runs
    from calr_cli.use.outputs import PAGES, check_output

    reporter = reporter_for(quiet)
    records = read_runs(runs)
    target = output or (records[0].folder.path if len(records) == 1 else Path()) / "report.html"
    check_output("--output", target, PAGES)
    where = Machine(gpus, device, root=root, threads=threads).devices(reporter)[0]
    result = write_report(records, target, where, root, reporter)
    if json:
        print_json(result)
    else:
        print_paths({"report": target})
