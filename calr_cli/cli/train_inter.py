"""``calr train-inter``: stage 2, one model over all cameras."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from calr_cli.cli import options
from calr_cli.cli.begin import Training, begin_run, new_training, resumed_training
from calr_cli.cli.console import print_json, print_paths, print_table, reporter_for
from calr_cli.cli.next_steps import after_training, print_next, resumable, resume_command
from calr_cli.cli.ranks import on_main
from calr_cli.cli.request import Machine, Request, refuse_beside_resume, show_config
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
    file = on_main(lambda: find_local_labels(training, local_labels, reporter))
    run = begin_run(training, "inter", output, reporter)
    summary: dict[str, Any] = {}
    if file is None and training.settings.inter.uses_stage_1:
        intra_run = begin_run(replace(training, continuation=None), "intra", None, reporter)
        summary["intra"] = run_intra_first(training, intra_run, run, reporter)
        file = intra_run.local_labels
    summary |= run_inter(training, run, file, reporter)
    if json:
        print_json(summary)
    else:
        show_inter(summary)
    print_next(quiet, *after_training(run, training.dataset, machine))


def find_local_labels(training: Training, given: Path | None, reporter: Reporter) -> Path | None:
    """The local labels that stage 2 uses: the run's own, ``given``, or the newest; None if there are none.

    Raises:
        ConfigError: ``given``, and the run has its own already or refines nothing.
        DataError: A file that is not of this dataset.
        CalrError: No network of stage 1 to start from, see `check_start_model`.
    """
    from calr_cli.data.local_labels import read_local_labels
    from calr_cli.method.build import check_start_model
    from calr_cli.runs.find import newest_local_labels

    if not training.settings.inter.uses_stage_1:
        if given is not None:
            raise ConfigError(
                "--local-labels is of no use with inter.refinement.enabled = false", "Leave one of them out"
            )
        return None
    run = None if training.continuation is None else training.continuation.run
    name, with_model = training.settings.data.dataset, training.settings.inter.start == "intra"
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
        read_local_labels(found, training.dataset.train)  # a wrong file is told before anything is written
    if found is None or found != (run and run.local_labels):
        check_start_model(training.settings, found)
    return found


def run_intra_first(
    training: Training, intra_run: RunFolder, inter_run: RunFolder, reporter: Reporter
) -> dict[str, Any]:
    """Stage 1 on the way to ``inter_run``, which waits with its settings written; the summary of stage 1."""
    first = resume_command("train-intra", intra_run.path, training.machine)
    then = resume_command(
        "train-inter", inter_run.path, training.machine, "--local-labels", str(intra_run.local_labels)
    )
    with resumable(first, then):
        return run_intra(training, intra_run, reporter)


def run_inter(
    training: Training,
    run: RunFolder,
    local_labels: Path | None,
    reporter: Reporter,
    *instead: str,
) -> dict[str, Any]:
    """Stage 2 in ``run``, which keeps a copy of the local labels; its summary.

    What resumes it, should it stop, is `train-inter`, or the commands ``instead``.
    """
    from calr_cli.method import processes

    kept = ["--local-labels", str(local_labels)] if local_labels and local_labels != run.local_labels else []
    with resumable(*(instead or [resume_command("train-inter", run.path, training.machine, *kept)])):
        labels = on_main(lambda: keep_local_labels(training, run, local_labels))
    reporter.stage(f"stage 2, inter-camera: {training.settings.data.dataset} -> {run.path}")
    with resumable(*(instead or [resume_command("train-inter", run.path, training.machine)])):
        summary = processes.run_inter(
            training.settings, training.dataset, labels, run, training.devices, reporter
        )
    return {**summary, "run": str(run.path)}


def keep_local_labels(training: Training, run: RunFolder, file: Path | None) -> IntArray | None:
    """The local labels in ``file``, of which ``run`` then has a copy; None without a file.

    Where stage 2 starts from stage 1's network, the run has a copy of that, too.
    """
    from calr_cli.data.local_labels import read_local_labels, write_local_labels
    from calr_cli.runs.folder import RunFolder

    if file is None:
        return None
    labels = read_local_labels(file, training.dataset.train)
    if file != run.local_labels:
        if training.settings.inter.start == "intra":
            with atomic_write(run.start) as temporary:
                shutil.copyfile(RunFolder(file.parent).model, temporary)
        write_local_labels(run.local_labels, training.dataset.train, labels)
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
