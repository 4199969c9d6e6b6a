"""What the training commands do before they train: settings, devices, data, and the run to continue."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calr_cli.cli.console import print_json, print_text
from calr_cli.cli.options import setting_flags
from calr_cli.cli.ranks import on_main
from calr_cli.errors import CheckpointError, ConfigError, TrainingError
from calr_cli.events import Reporter
from calr_cli.files import require_writable

if TYPE_CHECKING:  # torch takes seconds to import; `--help` and `--print-config` do without
    import torch

    from calr_cli.config.loading import ResolvedSettings
    from calr_cli.config.schema import Settings
    from calr_cli.runs.folder import RunFolder
    from calr_cli.runs.resume import Continuation
    from calr_cli.types import Dataset

MACHINE_FLAGS = {"gpus": "--gpus", "device": "--device", "processes": "--processes", "root": "--root"}
"""Where a run works: these may differ when it is continued."""

NEW_RUN_FLAGS = {
    "dataset": "-d/--dataset",
    "config": "--config",
    "recipe": "--recipe",
    "print_config": "--print-config",
    "output": "--output",
    "seeds": "--seeds",
}
"""What belongs to a run's start only."""


@dataclass(frozen=True)
class Start:
    """All that training needs, checked; nothing is written yet.

    Attributes:
        settings: What the run is told.
        dataset: Its images.
        devices: Where it works, a process on each.
        continuation: Of the run to continue, None for a new one.
        tensorboard: Whether it writes for TensorBoard as well.
    """

    settings: Settings
    dataset: Dataset
    devices: list[torch.device]
    continuation: Continuation | None = None
    tensorboard: bool = False


def resolved_settings(
    params: Mapping[str, Any], stage: str, known: Mapping[str, tuple[str, Any]] | None = None
) -> ResolvedSettings:
    """The settings of a command's flags, with the dataset's canonical name.

    Args:
        params: Parameters of the command, ``typer.Context.params``.
        stage: Section that the stage's own flags belong to.
        known: Dotted key -> (origin, value) of settings that are no longer open.

    Raises:
        ConfigError: A wrong setting, no dataset, or one that does not exist.
    """
    from calr_cli.config.loading import resolve_settings
    from calr_cli.prepare.names import resolve_dataset_name

    name = resolve_dataset_name(params["dataset"]) if params["dataset"] is not None else None
    flags = {**setting_flags(params, stage), **(known or {})}
    others = (params["config"], params["set_"] or (), flags, params.get("recipe"))
    resolved = resolve_settings(name, *others)
    if resolved.origins["data.dataset"] in ("default", "preset synthetic"):
        raise no_dataset()
    named = resolved.settings.data.dataset
    return (
        resolved
        if resolve_dataset_name(named) == named
        else resolve_settings(resolve_dataset_name(named), *others)
    )


def no_dataset() -> ConfigError:
    """The answer to a command that does not know its dataset."""
    from calr_cli.prepare.datasets import DATASET_NAMES
    from calr_cli.prepare.names import own_dataset_names

    names = ", ".join((*own_dataset_names(), *DATASET_NAMES))
    return ConfigError("which dataset? None was given", f"Give -d NAME; datasets: {names}")


def show_config(resolved: ResolvedSettings, as_json: bool) -> None:
    """Print all settings and where each came from."""
    from calr_cli.config.loading import print_config

    if as_json:
        print_json({"settings": resolved.settings.model_dump(), "origins": dict(resolved.origins)})
    else:
        print_text(print_config(resolved))


def refuse_beside_resume(params: Mapping[str, Any], stage: str) -> None:
    """Keep a run as it was begun, but for what ``--set`` changes on purpose.

    Raises:
        ConfigError: Flags of a new run, or of settings, which are to be given by ``--set``.
    """
    if given := [flag for name, flag in NEW_RUN_FLAGS.items() if params.get(name)]:
        raise ConfigError(
            f"--resume continues a run as it was begun: {', '.join(given)} cannot be given beside it",
            "Leave that out, or start a new run",
        )
    if flags := setting_flags(params, stage):
        words = {key: "true" if value is True else value for key, (_, value) in flags.items()}
        changes = " ".join(f"--set {key}={shlex.quote(word)}" for key, word in words.items())
        names = ", ".join(flag for flag, _ in flags.values())
        raise ConfigError(
            f"--resume continues a run as it was begun: {names} would change its settings",
            f"To change them on purpose: {changes}",
        )


def start_training(params: Mapping[str, Any], stage: str, reporter: Reporter) -> Start | None:
    """Check everything that a run needs before anything is written; None if only settings were asked for.

    Args:
        params: Parameters of the command, ``typer.Context.params``.
        stage: ``intra`` or ``inter``, whose section the stage's own flags belong to.
        reporter: Told what the run starts from.

    Raises:
        CalrError: A flag, setting, device, dataset, weights file or run folder that cannot be used.
    """
    resume = params.get("resume")
    if resume is not None:
        refuse_beside_resume(params, stage)
    else:
        resolved = resolved_settings(params, stage)
        if params["print_config"]:
            show_config(resolved, params["json"])
            return None

    devices = devices_of(params, reporter)
    if resume is None:
        on_main(lambda: refuse_existing(params["output"]))
        return checked(resolved.settings, None, devices, params, reporter)
    plan = on_main(lambda: plan_unfinished(resume, stage, params["set_"] or ()))
    return checked(plan.settings, plan, devices, params, reporter)


def plan_unfinished(path: Path, stage: str, assignments: Sequence[str]) -> Continuation:
    """How the run in ``path`` goes on.

    Raises:
        CheckpointError: It is none, or it is finished.
        ConfigError: A setting that may not change, or not in this way.
    """
    from calr_cli.runs.resume import nothing_to_resume, plan_continuation

    plan = plan_continuation(path, stage, assignments)
    if plan.finished:
        raise nothing_to_resume(plan, stage)
    return plan


def devices_of(params: Mapping[str, Any], reporter: Reporter) -> list[torch.device]:
    """The devices that the flags ask for; under torchrun, its processes know each other from here on.

    Raises:
        ConfigError: A device that is not there, or flags that contradict each other.
        WorkerError: The other processes cannot be reached.
    """
    from calr_cli.distributed.collectives import join
    from calr_cli.distributed.devices import choose_devices

    devices = choose_devices(params["gpus"], params["device"], params["processes"], reporter)
    join()
    return devices


def checked(
    settings: Settings,
    continuation: Continuation | None,
    devices: list[torch.device],
    params: Mapping[str, Any],
    reporter: Reporter,
) -> Start:
    """The start of a run whose data and weights are there.

    Raises:
        CalrError: They are not, or cannot be used; or tensorboard is asked for and is not installed.
    """
    from calr_cli.method.build import check_start
    from calr_cli.prepare.prepared import load_dataset
    from calr_cli.runs.tensorboard import require_tensorboard

    if params["tensorboard"]:
        require_tensorboard()
    dataset = load_dataset(settings.data.dataset, params["root"], reporter)
    reporter.note(check_start(settings))
    return Start(settings, dataset, devices, continuation, params["tensorboard"])


def begin_run(start: Start, stage: str, output: Path | None, reporter: Reporter) -> RunFolder:
    """The folder to work in: a new one, or that of the run to continue, with that written down.

    Raises:
        CheckpointError: The folder cannot be made.
    """
    from calr_cli.runs.find import create_run
    from calr_cli.runs.resume import begin_continuation

    plan = start.continuation
    if plan is not None:
        run = on_main(lambda: begin_continuation(plan, start.devices, reporter))
    else:
        run = on_main(lambda: create_run(start.settings, stage, start.devices, output))
    follow(start, run)
    return run


def follow(start: Start, run: RunFolder) -> None:
    """Have the run write for TensorBoard, beginning with the epochs that are done, if that is asked for."""
    from calr_cli.runs.folder import RunFolder
    from calr_cli.runs.tensorboard import begin_events

    def begin() -> None:
        folders = [run]
        if run.read_environment()["stage"] == "intra":  # a camera is a training of its own
            folders = [RunFolder(run.path / f"cam{camid}") for camid in set(start.dataset.train.camids)]
        for folder in folders:
            folder.tensorboard.mkdir(parents=True, exist_ok=True)
            if rows := folder.read_metrics():
                begin_events(folder.tensorboard, rows)

    if start.tensorboard:
        on_main(begin)


def refuse_existing(output: Path | None) -> None:
    """Keep from beginning what could not be written in the end.

    Raises:
        CheckpointError: ``output`` exists, or it cannot be made.
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


def resume_command(command: str, folder: Path, params: Mapping[str, Any], *more: str) -> str:
    """The command line that continues the run in ``folder`` on the same machine as this command."""
    words = ["calr", command, "--resume", str(folder), *more]
    for name, flag in MACHINE_FLAGS.items():
        if params[name] is not None:
            words += [flag, str(params[name])]
    return shlex.join(words)


@contextmanager
def resumable(*commands: str) -> Iterator[None]:
    """Whatever stops the block says which commands, one after another, go on from there.

    A training that went wrong would go wrong again without a change.
    """
    try:
        yield
    except BaseException as error:
        change = " --set KEY=VALUE" if isinstance(error, TrainingError) else ""
        error.add_note(f"resume with: {commands[0]}{change}{''.join(f' && {more}' for more in commands[1:])}")
        raise
