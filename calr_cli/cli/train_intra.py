"""``calr train-intra``: stage 1, local labels camera by camera."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from calr_cli.cli import options
from calr_cli.cli.begin import begin_run, new_training, resumed_training
from calr_cli.cli.console import print_json, print_paths, print_table, print_text, reporter_for
from calr_cli.cli.next_steps import after_stage_1, print_next, resumable, resume_command
from calr_cli.cli.request import Machine, Request, refuse_beside_resume, show_config

if TYPE_CHECKING:
    pass


def train_intra(
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
    set_: options.Set = None,
    config: options.Config = None,
    recipe: options.Recipe = None,
    print_config: options.PrintConfig = False,
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
    """Stage 1: train and cluster within each camera; write local_labels.csv.

    Examples:
        calr train-intra -d veri
        calr train-intra -d shop -a mobilenet_v2 --epochs 10 --device cpu
    """
    reporter = reporter_for(quiet)
    machine = Machine(gpus, device, processes, root, threads)
    flags = options.setting_flags(context, "intra")
    request = Request(dataset, config, recipe, set_ or (), flags)
    if resume is not None:
        refuse_beside_resume(request, print_config, output)
        training = resumed_training(resume, "intra", request.assignments, machine, tensorboard, reporter)
    elif print_config:
        show_config(request.for_training(), json)
        return
    else:
        training = new_training(request, machine, output, tensorboard, reporter)
    from calr_cli.method.both import run_stage_1

    run = begin_run(training, "intra", output, reporter)
    with resumable(lambda: [resume_command("train-intra", run.path, machine)]):
        summary = run_stage_1(run, training.dataset, training.devices, reporter)
    if json:
        print_json(summary)
    else:
        show_intra(summary)
    print_next(quiet, after_stage_1(run, training.dataset.name, request, machine))


def show_intra(summary: dict[str, Any]) -> None:
    """The summary of stage 1 as tables: the cameras in their order, then all together."""
    print_table(
        ["camera", "images", "local labels", "silhouette", "pair F"],
        [
            [
                str(row["camera"]),
                *(f"{row[key]:,}" for key in ("images", "clusters")),
                f"{row['silhouette']:.4f}" if "silhouette" in row else "-",
                f"{row['quality']['pair_f']:.3f}" if "quality" in row else "-",
            ]
            for row in summary["per_camera"]
        ],
    )
    print_text("")
    quality = summary.get("quality", {})
    figures = [f"{quality[key]:.3f}" if key in quality else "-" for key in ("pair_f", "bcubed_f", "nmi")]
    counts = [f"{summary[key]:,}" for key in ("images", "cameras", "clusters")]
    print_table(
        ["dataset", "images", "cameras", "local labels", "pair F", "BCubed F", "NMI"],
        [[summary["dataset"], *counts, *figures]],
    )
    print_paths({"run": summary["run"], "local labels": summary["local_labels"]})
