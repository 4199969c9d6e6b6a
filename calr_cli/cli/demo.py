"""``calr demo``: the whole method on drawn pedestrians."""

from __future__ import annotations

from pathlib import Path

import typer

from calr_cli.cli import options
from calr_cli.cli.begin import refuse_existing
from calr_cli.cli.console import print_json, print_paths, print_table, reporter_for
from calr_cli.cli.evaluate import MEASURES


def demo(
    context: typer.Context,
    seed: options.Seed = None,
    set_: options.Set = None,
    output: options.OutputOfDemo = None,
    device: options.Device = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train and compare on the synthetic dataset: untrained, global clustering, CALR, --recipe plus.

    Example:
        calr demo --output demo
    """
    from calr_cli.config.loading import resolve_settings

    flags = options.setting_flags(context, "inter")
    settings, plus = (
        resolve_settings("synthetic", None, set_ or (), flags, recipe).settings for recipe in (None, "plus")
    )
    refuse_existing(output)
    from calr_cli.distributed.devices import choose_devices
    from calr_cli.method.demo import run_demo
    from calr_cli.report.page import write_report
    from calr_cli.report.record import read_runs

    reporter = reporter_for(quiet)
    where = choose_devices(None, device, None, reporter)[0]
    result = run_demo(settings, plus, where, output, reporter)
    if not json:
        print_table(
            ["model", *MEASURES],
            [[row["model"], *(f"{row[measure]:.1f}" for measure in MEASURES)] for row in result["rows"]],
        )
    runs = [Path(run) for run in result["runs"].values()]
    page = (output or runs[-1]) / "report.html"
    write_report(read_runs(runs), page, where, None, reporter)
    if json:
        print_json({**result, "report": str(page)})
    else:
        print_paths({**result["runs"], "report": page})
