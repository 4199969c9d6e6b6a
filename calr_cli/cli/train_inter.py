"""``calr train-inter``: stage 2, one model over all cameras."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from calr_cli.cli import options
from calr_cli.cli.begin import Training, begin_run, new_training, resumed_training
from calr_cli.cli.console import print_json, print_paths, print_table, reporter_for
from calr_cli.cli.next_steps import after_training, print_next
from calr_cli.cli.pairs import train_pair
from calr_cli.cli.ranks import on_main
from calr_cli.cli.request import Machine, Request, refuse_beside_resume, show_config
from calr_cli.events import Reporter

if TYPE_CHECKING:
    from calr_cli.config.schema import Settings


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
    threads: options.Threads = None,
    root: options.Root = None,
    output: options.Output = None,
    resume: options.ResumeRun = None,
    tensorboard: options.Tensorboard = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Stage 2: train one model over all cameras on refined labels; write model.pth.

    Without local labels of the dataset, stage 1 runs first; --epochs and --iters then bound it, too.

    Examples:
        calr train-inter -d veri --gpus 0,1,2,3
        calr train-inter --resume runs/veri/inter/20260131-120000
    """
    reporter = reporter_for(quiet)
    machine = Machine(gpus, device, processes, root, threads)
    flags = options.setting_flags(context, "inter")
    request = Request(dataset, config, recipe, set_ or (), flags, local_labels)
    if resume is not None:
        refuse_beside_resume(request, print_config, output)
        training = resumed_training(resume, "inter", request.assignments, machine, tensorboard, reporter)
    elif print_config:
        show_config(request.for_training(), json)
        return
    else:
        training = new_training(request, machine, output, tensorboard, reporter)
    from calr_cli.method.both import Pair, find_local_labels

    settings, images = training.settings, training.dataset.train
    begun = None if training.continuation is None else training.continuation.run
    labels = on_main(lambda: find_local_labels(settings, images, begun, local_labels, reporter))
    run, intra = begin_run(training, "inter", output, reporter), None
    if labels is None and settings.inter.uses_stage_1:
        first = replace(training, continuation=None, settings=shortened(settings, request))
        warn_of_stage_1(first, reporter)
        intra = begin_run(first, "intra", None, reporter)
    summaries = train_pair(training, Pair(run, intra, labels), reporter)
    summary = summaries.pop("inter")
    if json:
        print_json({**summaries, **summary})
    else:
        show_inter(summary)
    print_next(quiet, *after_training(run, training.dataset, machine))


def shortened(settings: Settings, request: Request) -> Settings:
    """The settings of a stage 1 on the way to stage 2: ``--epochs`` and ``--iters`` are bounds of it, too.

    Whoever asks for a short stage 2 wants no long stage 1; ``--set intra.epochs=N`` decides otherwise.
    """
    given = {assignment.partition("=")[0].strip() for assignment in request.assignments}
    bounds = {
        name: min(getattr(settings.intra, name), getattr(settings.inter, name))
        for name in ("epochs", "iters")
        if f"inter.{name}" in request.flags and f"intra.{name}" not in given
    }
    return settings.model_copy(update={"intra": settings.intra.model_copy(update=bounds)})


def warn_of_stage_1(training: Training, reporter: Reporter) -> None:
    """Say, also if quiet, that stage 1 comes first, how long it will take, and how to shorten it."""
    from calr_cli.method.estimates import duration, training_seconds

    intra, images = training.settings.intra, training.dataset.train
    seconds = training_seconds(training.settings, images, training.devices, ["intra"])
    reporter.warning(
        f"stage 1 runs first: {len(set(images.camids))} cameras, {intra.epochs} epochs of {intra.iters} "
        f"batches each, about {duration(seconds)} and the clustering. To shorten it: --set intra.epochs=N "
        "--set intra.iters=N; to do without: --local-labels FILE"
    )


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
