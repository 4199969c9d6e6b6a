"""``calr train-inter``: stage 2, one model over all cameras."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from calr_cli.cli import options
from calr_cli.cli.console import RichReporter, print_json, print_paths, print_table
from calr_cli.cli.start import Start, resumable, resume_command, start_training
from calr_cli.cli.train_intra import run_intra
from calr_cli.errors import ConfigError
from calr_cli.events import Reporter

if TYPE_CHECKING:
    from calr_cli.pipelines.run_dir import RunFolder


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
    set_: options.Set = None,
    config: options.Config = None,
    print_config: options.PrintConfig = False,
    local_labels: options.LocalLabels = None,
    gpus: options.Gpus = None,
    device: options.Device = None,
    root: options.Root = None,
    output: options.Output = None,
    resume: options.ResumeRun = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Stage 2: train one model over all cameras on refined labels; write model.pth.

    Without local labels of the dataset, stage 1 runs first.
    """
    reporter = RichReporter(quiet)
    start = start_training(context.params, "inter", reporter)
    if start is None:
        return
    from calr_cli.data.local_labels import read_local_labels
    from calr_cli.pipelines.run_dir import create_run

    file = find_local_labels(start, local_labels, reporter)
    if file is not None:
        read_local_labels(file, start.dataset.train)  # a wrong file is told before anything is written
    run = start.run or create_run(start.settings, "inter", start.device, output)
    summary: dict[str, Any] = {}
    if file is None and start.settings.inter.refinement.enabled:
        intra_run = create_run(start.settings, "intra", start.device, None)
        summary["intra"] = run_intra_first(start, intra_run, run, context.params, reporter)
        file = intra_run.local_labels
    summary |= run_inter(start, run, file, context.params, reporter)
    if json:
        print_json(summary)
    else:
        show_inter(summary)
    reporter.note(f"next: calr evaluate --resume {run.model}")


def find_local_labels(start: Start, given: Path | None, reporter: Reporter) -> Path | None:
    """The local labels that stage 2 uses: the run's own, ``given``, or the newest; None if there are none.

    Raises:
        ConfigError: ``given``, and the run has its own already or refines nothing.
    """
    from calr_cli.pipelines.run_dir import newest_local_labels

    if not start.settings.inter.refinement.enabled:
        if given is not None:
            raise ConfigError(
                "--local-labels is of no use with inter.refinement.enabled = false", "Leave one of them out"
            )
        return None
    if start.run is not None and start.run.local_labels.exists():
        if given is not None:
            raise ConfigError(
                f"{start.run.path} was begun with local labels of its own, {start.run.local_labels}",
                "Leave --local-labels out",
            )
        return start.run.local_labels
    if given is not None:
        return given
    name = start.settings.data.dataset
    if found := newest_local_labels(name):
        reporter.note(f"local labels: {found} (the newest of {name})")
    else:
        reporter.note(f"no local labels of {name} yet: running stage 1 first")
    return found


def run_intra_first(
    start: Start, intra_run: RunFolder, inter_run: RunFolder, params: Mapping[str, Any], reporter: Reporter
) -> dict[str, Any]:
    """Stage 1 on the way to ``inter_run``, which waits with its settings written; the summary of stage 1."""
    first = resume_command("intra", intra_run, params)
    then = resume_command("inter", inter_run, params, "--local-labels", str(intra_run.local_labels))
    with resumable(first, then):
        return run_intra(start, intra_run, reporter)


def run_inter(
    start: Start, run: RunFolder, local_labels: Path | None, params: Mapping[str, Any], reporter: Reporter
) -> dict[str, Any]:
    """Stage 2 in ``run``, which keeps a copy of the local labels; its summary."""
    from calr_cli.data.local_labels import read_local_labels, write_local_labels
    from calr_cli.pipelines.inter import train_inter as train

    kept = ["--local-labels", str(local_labels)] if local_labels and local_labels != run.local_labels else []
    with resumable(resume_command("inter", run, params, *kept)):
        labels = None if local_labels is None else read_local_labels(local_labels, start.dataset.train)
        if labels is not None and kept:
            write_local_labels(run.local_labels, start.dataset.train, labels)
    reporter.stage(f"stage 2, inter-camera: {start.settings.data.dataset} -> {run.path}")
    with resumable(resume_command("inter", run, params)):
        summary = train(start.settings, start.dataset, labels, run, start.device, reporter)
    return {**summary, "run": str(run.path)}


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
