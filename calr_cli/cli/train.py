"""``calr train``: both stages, one after the other; with one seed or several."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import typer

from calr_cli.cli import options
from calr_cli.cli.begin import Training, checked, follow, new_training
from calr_cli.cli.console import print_json, print_text, reporter_for
from calr_cli.cli.next_steps import after_seeds, after_training, print_next, resume_command
from calr_cli.cli.pairs import begin_pairs, continue_pairs, plan_pairs, train_pair
from calr_cli.cli.ranks import on_main
from calr_cli.cli.request import Machine, Request, refuse_beside_resume, show_config
from calr_cli.cli.seeds import show_seeds, train_seeds
from calr_cli.cli.train_inter import show_inter
from calr_cli.cli.train_intra import show_intra
from calr_cli.errors import ConfigError
from calr_cli.runs.lock import hold


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
    seeds: options.Seeds = None,
    deterministic: options.Deterministic = None,
    oracle: options.Oracle = None,
    plugin: options.Plugin = None,
    set_: options.Set = None,
    config: options.Config = None,
    recipe: options.Recipe = None,
    print_config: options.PrintConfig = False,
    gpus: options.Gpus = None,
    device: options.Device = None,
    processes: options.Processes = None,
    threads: options.Threads = None,
    root: options.Root = None,
    output: options.OutputOfBoth = None,
    resume: options.ResumeBoth = None,
    tensorboard: options.Tensorboard = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train both stages, one after the other.

    Settings of one stage: --set intra.epochs=10, --set inter.batch_size=128.

    Examples:
        calr train -d shop
        calr train -d veri --gpus 0,1,2,3 --output veri
        calr train --resume veri
    """
    if seeds is not None and seeds < 1:
        raise ConfigError(f"--seeds {seeds} must be from 1")
    reporter = reporter_for(quiet)
    machine = Machine(gpus, device, processes, root, threads)
    flags = options.setting_flags(context, "inter")
    request = Request(dataset, config, recipe, set_ or (), flags)
    folder = resume
    if resume is not None:
        refuse_beside_resume(request, print_config, output, seeds)
        devices = machine.devices(reporter)
        on_main(partial(hold, resume, reporter))
        plans = on_main(partial(plan_pairs, resume, request.assignments))
        training = checked(plans[0]["inter"].settings, machine, devices, tensorboard, reporter)
        pairs = on_main(partial(continue_pairs, plans, training, reporter))
    elif print_config:
        show_config(request.for_training(), json)
        return
    else:
        training = new_training(request, machine, output, tensorboard, reporter)
        folder = on_main(partial(folder_of, training, seeds, output))
        pairs = on_main(partial(begin_pairs, training, seeds, folder))
    for pair in pairs:
        for run in filter(None, (pair.intra, pair.inter)):
            on_main(partial(hold, run.path, reporter))
            follow(training, run)
    if pairs[0].intra is None:
        reporter.note("inter.refinement.enabled = false: nothing uses local labels, stage 1 is left out")

    again = "" if folder is None else resume_command("train", folder, machine)
    first = pairs[0].inter
    if folder is not None and first.path.parent != folder:
        result = train_seeds(training, pairs, reporter, again)
        show: Callable[[dict[str, Any]], None] = show_seeds
        steps = after_seeds([pair.inter for pair in pairs], training.dataset, machine)
    else:
        result = train_pair(training, pairs[0], reporter, again)
        show = show_pair
        steps = after_training(first, training.dataset, machine)
    if json:
        print_json(result)
    else:
        show(result)
    print_next(quiet, *steps)


def folder_of(training: Training, seeds: int | None, output: Path | None) -> Path | None:
    """The folder that holds all runs; None for a single pair that has no name."""
    from calr_cli.runs.find import RUNS, free_name

    if output is None and seeds is not None:
        return free_name(RUNS / training.settings.data.dataset / "seeds")
    return output


def show_pair(result: dict[str, Any]) -> None:
    """The summaries of the stages that ran."""
    if "intra" in result:
        show_intra(result["intra"])
        print_text("")
    if "inter" in result:
        show_inter(result["inter"])
