"""What the training commands do before they train: everything is checked, then the run's folder is made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from calr_cli.cli.ranks import on_main
from calr_cli.cli.request import Machine, Request
from calr_cli.errors import CheckpointError, WeightsError
from calr_cli.events import Reporter
from calr_cli.files import require_writable
from calr_cli.runs.lock import hold

if TYPE_CHECKING:  # torch takes seconds to import; `--help` and `--print-config` do without
    import torch

    from calr_cli.config.loading import ResolvedSettings
    from calr_cli.config.schema import Settings
    from calr_cli.runs.folder import RunFolder
    from calr_cli.runs.resume import Continuation
    from calr_cli.types import Dataset


@dataclass(frozen=True)
class Training:
    """All that training needs, checked; nothing is written yet.

    Attributes:
        settings: Of its run.
        dataset: Its images.
        machine: Where it works.
        devices: Those of the machine, a process on each.
        continuation: Of the run to continue, None for a new one.
        tensorboard: Whether it writes for TensorBoard as well.
    """

    settings: Settings
    dataset: Dataset
    machine: Machine
    devices: list[torch.device]
    continuation: Continuation | None = None
    tensorboard: bool = False


def new_training(
    request: Request, machine: Machine, output: Path | None, tensorboard: bool, reporter: Reporter
) -> Training:
    """Check everything that a new run needs before anything is written.

    Raises:
        CalrError: A flag, setting, device, dataset or weights file that cannot be used, or ``output`` exists.
    """
    resolved = request.for_training()
    tell_choices(request, resolved, reporter)
    settings, devices = resolved.settings, machine.devices(reporter)
    on_main(lambda: refuse_existing(output))
    return checked(settings, machine, devices, tensorboard, reporter)


def tell_choices(request: Request, resolved: ResolvedSettings, reporter: Reporter) -> None:
    """Say what was chosen without being asked for: the recipe, and the settings that follow the images."""
    from calr_cli.config.following import AUTO, own_images
    from calr_cli.config.loading import BY_DEFAULT, flat_settings, measured, preset_names

    values, dataset = flat_settings(resolved.settings), resolved.settings.data.dataset
    if BY_DEFAULT in resolved.origins.values():
        reporter.note("recipe: plus, the default for own images; --recipe calr: the published method")
    elif request.recipe is None and request.config is None and dataset in preset_names():
        reporter.note(f"recipe: calr, the published method; --recipe plus: {measured('plus')}")
    reasons: dict[str, list[str]] = {}
    for key, origin in resolved.origins.items():
        how, _, reason = origin.partition(": ")
        if how == AUTO:
            reasons.setdefault(reason, []).append(f"{key} {values[key]}")
    if reasons:
        reporter.note(f"settings that follow the data, {own_images(dataset)}:")
    for reason, keys in reasons.items():
        reporter.note(f"  {', '.join(keys)}: {reason}")


def resumed_training(
    folder: Path,
    stage: str,
    assignments: Sequence[str],
    machine: Machine,
    tensorboard: bool,
    reporter: Reporter,
) -> Training:
    """Check everything that the run of ``stage`` in ``folder`` needs to go on, before anything is written.

    Raises:
        CalrError: A setting, device, dataset, weights file or run folder that cannot be used.
    """
    from calr_cli.runs.resume import require_resumable

    devices = machine.devices(reporter)
    on_main(lambda: hold(folder, reporter))
    plan = on_main(lambda: plan_unfinished(folder, stage, assignments))
    training = checked(plan.settings, machine, devices, tensorboard, reporter)
    on_main(lambda: require_resumable(plan.run, training.dataset.train))
    return replace(training, continuation=plan)


def plan_unfinished(folder: Path, stage: str, assignments: Sequence[str]) -> Continuation:
    """How the run in ``folder`` goes on.

    Raises:
        CheckpointError: There is no run of ``stage`` in it, or a finished one.
        ConfigError: A setting that may not change, or not in this way.
    """
    from calr_cli.runs.resume import nothing_to_resume, plan_continuation

    plan = plan_continuation(folder, stage, assignments)
    if plan.finished:
        raise nothing_to_resume(plan, stage)
    return plan


def checked(
    settings: Settings,
    machine: Machine,
    devices: list[torch.device],
    tensorboard: bool,
    reporter: Reporter,
) -> Training:
    """A training whose data and weights are there.

    Raises:
        CalrError: They are not, or cannot be used; or tensorboard is asked for and is not installed.
    """
    from calr_cli.method.build import check_start
    from calr_cli.method.estimates import smaller_networks
    from calr_cli.method.plugin import load_plugin
    from calr_cli.prepare.prepared import load_dataset
    from calr_cli.runs.tensorboard import require_tensorboard

    if tensorboard:
        require_tensorboard()
    dataset = load_dataset(settings.data.dataset, machine.root, reporter)
    try:
        reporter.note(check_start(settings))
    except WeightsError as error:
        if settings.model.pretrained == "imagenet" and (
            line := smaller_networks(settings, dataset.train, devices)
        ):
            error.add_note(line)
        raise
    if settings.plugin is not None:
        reporter.note(f"plugin {settings.plugin}: {', '.join(load_plugin(settings.plugin).names)}")
    return Training(settings, dataset, machine, devices, tensorboard=tensorboard)


def begin_run(training: Training, stage: str, output: Path | None, reporter: Reporter) -> RunFolder:
    """The folder to work in: a new one, or that of the run to continue, with that written down.

    Raises:
        CheckpointError: The folder cannot be made.
    """
    from calr_cli.runs.find import create_run
    from calr_cli.runs.resume import begin_continuation

    plan = training.continuation
    if plan is not None:
        run = on_main(lambda: begin_continuation(plan, training.devices, reporter))
    else:
        run = on_main(lambda: create_run(training.settings, stage, training.devices, output))
        on_main(lambda: hold(run.path, reporter))
    follow(training, run)
    return run


def follow(training: Training, run: RunFolder) -> None:
    """Have the run write for TensorBoard, beginning with the epochs that are done, if that is asked for."""
    from calr_cli.runs.folder import RunFolder
    from calr_cli.runs.tensorboard import begin_events

    def begin() -> None:
        folders = [run]
        if run.read_environment()["stage"] == "intra":  # a camera is a training of its own
            folders = [RunFolder(run.path / f"cam{camid}") for camid in set(training.dataset.train.camids)]
        for folder in folders:
            folder.tensorboard.mkdir(parents=True, exist_ok=True)
            if rows := folder.read_metrics():
                begin_events(folder.tensorboard, rows)

    if training.tensorboard:
        on_main(begin)


def refuse_existing(output: Path | None) -> None:
    """Keep from beginning what could not be written in the end.

    Raises:
        CheckpointError: ``output`` exists, or cannot be made.
    """
    if output is None:
        return
    if os.path.lexists(output):
        raise CheckpointError(
            f"{output} exists already",
            "Choose another --output, or continue an interrupted run with --resume",
        )
    try:
        require_writable(output)
    except OSError as error:
        raise CheckpointError(
            f"cannot make the run folder {output}: {error.strerror}", "Choose a writable --output"
        ) from None
