"""``calr train``: both stages, one after the other."""

from __future__ import annotations

from typing import Any

import typer

from calr_cli.cli import options
from calr_cli.cli.console import RichReporter, print_json
from calr_cli.cli.start import start_training
from calr_cli.cli.train_inter import run_inter, run_intra_first, show_inter
from calr_cli.cli.train_intra import show_intra


def train(
    context: typer.Context,
    dataset: options.Dataset = None,
    arch: options.Arch = None,
    workers: options.Workers = None,
    height: options.Height = None,
    width: options.Width = None,
    pooling: options.Pooling = None,
    pretrained: options.Pretrained = None,
    seed: options.Seed = None,
    set_: options.Set = None,
    config: options.Config = None,
    print_config: options.PrintConfig = False,
    gpus: options.Gpus = None,
    device: options.Device = None,
    root: options.Root = None,
    output: options.OutputOfBoth = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Both stages. Settings of one stage: --set intra.epochs=10, --set inter.batch_size=128."""
    reporter = RichReporter(quiet)
    start = start_training(context.params, "inter", reporter)
    if start is None:
        return
    from calr_cli.pipelines.run_dir import create_run

    refined = start.settings.inter.refinement.enabled
    runs = {
        stage: create_run(start.settings, stage, start.device, output and output / stage)
        for stage in (("intra", "inter") if refined else ("inter",))
    }
    summary: dict[str, Any] = {}
    if refined:
        summary["intra"] = run_intra_first(start, runs["intra"], runs["inter"], context.params, reporter)
    else:
        reporter.note("inter.refinement.enabled = false: nothing uses local labels, stage 1 is left out")
    labels = runs["intra"].local_labels if refined else None
    summary["inter"] = run_inter(start, runs["inter"], labels, context.params, reporter)
    if json:
        print_json(summary)
    else:
        if refined:
            show_intra(summary["intra"])
        show_inter(summary["inter"])
    reporter.note(f"next: calr evaluate --resume {runs['inter'].model}")
