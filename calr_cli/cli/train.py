"""``calr train``: both stages, one after the other."""

from __future__ import annotations

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

    runs = {
        stage: create_run(start.settings, stage, start.device, output and output / stage)
        for stage in ("intra", "inter")
    }
    intra = run_intra_first(start, runs["intra"], runs["inter"], context.params, reporter)
    labels = runs["intra"].local_labels if start.settings.inter.refinement.enabled else None
    inter = run_inter(start, runs["inter"], labels, context.params, reporter)
    if json:
        print_json({"intra": intra, "inter": inter})
    else:
        show_intra(intra)
        show_inter(inter)
    reporter.note(f"next: calr evaluate --resume {runs['inter'].model}")
