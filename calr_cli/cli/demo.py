"""``calr demo``: the whole method on drawn pedestrians."""

from __future__ import annotations

from pathlib import Path

import typer

from calr_cli.cli import options
from calr_cli.cli.begin import refuse_existing
from calr_cli.cli.console import print_json, print_paths, print_table, reporter_for
from calr_cli.cli.evaluate import MEASURES
from calr_cli.cli.next_steps import print_next, report_words
from calr_cli.cli.request import Machine


def demo(
    context: typer.Context,
    seed: options.Seed = None,
    set_: options.Set = None,
    output: options.OutputOfDemo = None,
    device: options.Device = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train and compare on the synthetic dataset: untrained, global clustering alone, CALR.

    Example:
        calr demo --output demo
    """
    from calr_cli.config.loading import resolve_settings

    flags = options.setting_flags(context, "inter")
    settings = resolve_settings("synthetic", None, set_ or (), flags).settings

    refuse_existing(output)
    from calr_cli.distributed.devices import choose_devices
    from calr_cli.method.demo import run_demo

    reporter = reporter_for(quiet)
    result = run_demo(settings, choose_devices(None, device, None, reporter)[0], output, reporter)
    if json:
        print_json(result)
    else:
        print_table(
            ["model", *MEASURES],
            [[row["model"], *(f"{row[measure]:.1f}" for measure in MEASURES)] for row in result["rows"]],
        )
        print_paths(result["runs"])
    runs = [Path(result["runs"][name]) for name in ("stage 2", "baseline")]
    print_next(quiet, report_words(Machine(device=device), *runs))
