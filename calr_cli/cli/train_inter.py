"""``calr train-inter``: stage 2, one model over all cameras."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import typer

from calr_cli.cli import options
from calr_cli.cli.begin import begin_run, new_training, resumed_training
from calr_cli.cli.console import print_json, print_paths, print_table, reporter_for
from calr_cli.cli.next_steps import after_training, print_next
from calr_cli.cli.pairs import train_pair
from calr_cli.cli.ranks import on_main
from calr_cli.cli.request import Machine, Request, refuse_beside_resume, show_config


def train_inter(
    context: typer.Context,
    dataset: options.Dataset = None,
    arch: options.Arch = None,
    batch_size: options.BatchSize = None,
    workers: options.Workers = None,
    height: options.Height = None,
    width: options.Width = None,
    pooling: options.Pooling = None,
    pretrained: options.Pretrained = None,
    epochs: options.Epochs = None,
    iters: options.Iters = None,
    num_instances: options.NumInstances = None,
    seed: options.Seed = None,
    deterministic: options.Deterministic = None,
    oracle: options.Oracle = None,
    plugin: options.Plugin = None,
    set_: options.Set = None,
    config: options.Config = None,
    recipe: options.Recipe = None,
    print_config: options.PrintConfig = False,
    local_labels: options.LocalLabels = None,
    gpus: options.Gpus = None,
    device: options.Device = None,
    processes: options.Processes = None,
    root: options.Root = None,
    output: options.Output = None,
    resume: options.ResumeRun = None,
    tensorboard: options.Tensorboard = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Stage 2: train one model over all cameras on refined labels; write model.pth.

    Without local labels of the dataset, stage 1 runs first.

    Examples:
        calr train-inter -d veri --gpus 0,1,2,3
        calr train-inter --resume runs/veri/inter/20260131-120000
    """
    reporter = reporter_for(quiet)
    machine = Machine(gpus, device, processes, root)
    flags = options.setting_flags(context, "inter")
    request = Request(dataset, config, recipe, set_ or (), flags)
    if resume is not None:
        refuse_beside_resume(request, print_config, output)
        training = resumed_training(resume, "inter", request.assignments, machine, tensorboard, reporter)
    elif print_config:
        show_config(request.resolve(), json)
        return
    else:
        training = new_training(request, machine, output, tensorboard, reporter)
    from calr_cli.method.both import Pair, find_local_labels

    settings, images = training.settings, training.dataset.train
    begun = None if training.continuation is None else training.continuation.run
    labels = on_main(lambda: find_local_labels(settings, images, begun, local_labels, reporter))
    run, intra = begin_run(training, "inter", output, reporter), None
    if labels is None and settings.inter.uses_stage_1:
        intra = begin_run(replace(training, continuation=None), "intra", None, reporter)
    summaries = train_pair(training, Pair(run, intra, labels), reporter)
    summary = summaries.pop("inter")
    if json:
        print_json({**summaries, **summary})
    else:
        show_inter(summary)
    print_next(quiet, *after_training(run, training.dataset, machine))


def show_inter(summary: dict[str, Any]) -> None:
    """The summary of stage 2 as a table."""
    on_clustered = summary.get("quality", {}).get("clustered")
    pair_f = [f"{on_clustered[when]['pair_f']:.3f}" if on_clustered else "-" for when in ("before", "after")]
    counts = [f"{summary[key]:,}" for key in ("images", "epochs", "clusters", "outliers", "discarded")]
    print_table(
        ["dataset", "images", "epochs", "clusters", "outliers", "discarded", "pair F before", "after"],
        [[summary["dataset"], *counts, *pair_f]],
    )
    print_paths({"run": summary["run"], "model": summary["model"]})
