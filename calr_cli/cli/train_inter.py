"""``calr train-inter``: stage 2, one model over all cameras."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from calr_cli.cli import options
from calr_cli.cli.console import print_json, print_paths, print_table, reporter_for
from calr_cli.cli.next_steps import after_training, print_next
from calr_cli.cli.ranks import on_main
from calr_cli.cli.start import Start, begin_run, resumable, resume_command, start_training
from calr_cli.cli.train_intra import run_intra
from calr_cli.errors import ConfigError
from calr_cli.events import Reporter
from calr_cli.files import atomic_write

if TYPE_CHECKING:
    from calr_cli.runs.folder import RunFolder
    from calr_cli.types import IntArray


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
    start = start_training(context.params, "inter", reporter)
    if start is None:
        return
    file = on_main(lambda: find_local_labels(start, local_labels, reporter))
    run = begin_run(start, "inter", output, reporter)
    summary: dict[str, Any] = {}
    if file is None and start.settings.inter.uses_stage_1:
        intra_run = begin_run(replace(start, continuation=None), "intra", None, reporter)
        summary["intra"] = run_intra_first(start, intra_run, run, context.params, reporter)
        file = intra_run.local_labels
    summary |= run_inter(start, run, file, context.params, reporter)
    if json:
        print_json(summary)
    else:
        show_inter(summary)
    print_next(quiet, *after_training(run, start.dataset, context.params))


def find_local_labels(start: Start, given: Path | None, reporter: Reporter) -> Path | None:
    """The local labels that stage 2 uses: the run's own, ``given``, or the newest; None if there are none.

    Raises:
        ConfigError: ``given``, and the run has its own already or refines nothing.
        DataError: A file that is not of this dataset.
        CalrError: No network of stage 1 to start from, see `check_start_model`.
    """
    from calr_cli.data.local_labels import read_local_labels
    from calr_cli.method.build import check_start_model
    from calr_cli.runs.find import newest_local_labels

    if not start.settings.inter.uses_stage_1:
        if given is not None:
            raise ConfigError(
                "--local-labels is of no use with inter.refinement.enabled = false", "Leave one of them out"
            )
        return None
    run = None if start.continuation is None else start.continuation.run
    name, with_model = start.settings.data.dataset, start.settings.inter.start == "intra"
    if run is not None and run.local_labels.exists():
        if given is not None:
            raise ConfigError(
                f"{run.path} was begun with local labels of its own, {run.local_labels}",
                "Leave --local-labels out",
            )
        found: Path | None = run.local_labels
    elif given is not None:
        found = given
    elif found := newest_local_labels(name, with_model):
        reporter.note(f"local labels: {found} (the newest of {name})")
    else:
        reporter.note(f"no local labels{' with a network' * with_model} of {name} yet: running stage 1 first")
    if found is not None:
        read_local_labels(found, start.dataset.train)  # a wrong file is told before anything is written
    if found is None or found != (run and run.local_labels):
        check_start_model(start.settings, found)
    return found


def run_intra_first(
    start: Start, intra_run: RunFolder, inter_run: RunFolder, params: Mapping[str, Any], reporter: Reporter
) -> dict[str, Any]:
    """Stage 1 on the way to ``inter_run``, which waits with its settings written; the summary of stage 1."""
    first = resume_command("train-intra", intra_run.path, params)
    then = resume_command(
        "train-inter", inter_run.path, params, "--local-labels", str(intra_run.local_labels)
    )
    with resumable(first, then):
        return run_intra(start, intra_run, reporter)


def run_inter(
    start: Start,
    run: RunFolder,
    local_labels: Path | None,
    params: Mapping[str, Any],
    reporter: Reporter,
    *instead: str,
) -> dict[str, Any]:
    """Stage 2 in ``run``, which keeps a copy of the local labels; its summary.

    What resumes it, should it stop, is `train-inter`, or the commands ``instead``.
    """
    from calr_cli.method import processes

    kept = ["--local-labels", str(local_labels)] if local_labels and local_labels != run.local_labels else []
    with resumable(*(instead or [resume_command("train-inter", run.path, params, *kept)])):
        labels = on_main(lambda: keep_local_labels(start, run, local_labels))
    reporter.stage(f"stage 2, inter-camera: {start.settings.data.dataset} -> {run.path}")
    with resumable(*(instead or [resume_command("train-inter", run.path, params)])):
        summary = processes.run_inter(start.settings, start.dataset, labels, run, start.devices, reporter)
    return {**summary, "run": str(run.path)}


def keep_local_labels(start: Start, run: RunFolder, file: Path | None) -> IntArray | None:
    """The local labels in ``file``, of which ``run`` then has a copy; None without a file.

    Where stage 2 starts from stage 1's network, the run has a copy of that, too.
    """
    from calr_cli.data.local_labels import read_local_labels, write_local_labels
    from calr_cli.runs.folder import RunFolder

    if file is None:
        return None
    labels = read_local_labels(file, start.dataset.train)
    if file != run.local_labels:
        if start.settings.inter.start == "intra":
            with atomic_write(run.start) as temporary:
                shutil.copyfile(RunFolder(file.parent).model, temporary)
        write_local_labels(run.local_labels, start.dataset.train, labels)
    return labels


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
