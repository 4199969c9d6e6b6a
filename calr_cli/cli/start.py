"""What the training commands do before they train: settings, device, data, and the run to continue."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calr_cli.cli.console import print_json, print_text
from calr_cli.cli.options import SETTING_FLAGS, setting_flags
from calr_cli.errors import CheckpointError, ConfigError, TrainingError
from calr_cli.events import Reporter

if TYPE_CHECKING:  # torch takes seconds to import; `--help` and `--print-config` do without
    import torch

    from calr_cli.config.loading import ResolvedSettings
    from calr_cli.config.schema import Settings
    from calr_cli.pipelines.run_dir import RunFolder
    from calr_cli.types import Dataset

MACHINE_FLAGS = {"gpus": "--gpus", "device": "--device", "root": "--root"}
"""Where a run works: these may differ when it is continued."""

NEW_RUN_FLAGS = {
    "dataset": "-d/--dataset",
    "set_": "--set",
    "config": "--config",
    "print_config": "--print-config",
    "output": "--output",
    **{name: flag for name, (_, flag) in SETTING_FLAGS.items()},
}
"""What a run is told at its start and keeps."""


@dataclass(frozen=True)
class Start:
    """All that training needs, checked; nothing is written yet.

    Attributes:
        settings: What the run is told.
        dataset: Its images.
        device: Where it works.
        run: The run to continue, None for a new one.
    """

    settings: Settings
    dataset: Dataset
    device: torch.device
    run: RunFolder | None


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
    from calr_cli.data.names import resolve_dataset_name

    name = resolve_dataset_name(params["dataset"]) if params["dataset"] is not None else None
    others = (params["config"], params["set_"] or (), {**setting_flags(params, stage), **(known or {})})
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
    from calr_cli.data.datasets import DATASET_NAMES
    from calr_cli.data.names import own_dataset_names

    names = ", ".join((*own_dataset_names(), *DATASET_NAMES))
    return ConfigError("which dataset? None was given", f"Give -d NAME; datasets: {names}")


def show_config(resolved: ResolvedSettings, as_json: bool) -> None:
    """Print all settings and where each came from."""
    from calr_cli.config.loading import print_config

    if as_json:
        print_json({"settings": resolved.settings.model_dump(), "origins": dict(resolved.origins)})
    else:
        print_text(print_config(resolved))


def start_training(params: Mapping[str, Any], stage: str, reporter: Reporter) -> Start | None:
    """Check everything that a run needs before anything is written; None if only settings were asked for.

    Args:
        params: Parameters of the command, ``typer.Context.params``.
        stage: ``intra`` or ``inter``, whose section the stage's own flags belong to.
        reporter: Told what the run starts from.

    Raises:
        CalrError: A flag, setting, device, dataset, weights file or run folder that cannot be used.
    """
    if params.get("resume") is None:
        resolved = resolved_settings(params, stage)
        if params["print_config"]:
            show_config(resolved, params["json"])
            return None
    elif given := [flag for name, flag in NEW_RUN_FLAGS.items() if params.get(name)]:
        raise ConfigError(
            f"--resume continues a run as it was begun: {', '.join(given)} cannot be given beside it",
            "Leave out what is not --gpus, --device or --root, or start a new run",
        )

    from calr_cli.data.prepared import load_dataset
    from calr_cli.pipelines.build import check_start, choose_device
    from calr_cli.pipelines.run_dir import open_run

    run = open_run(params["resume"], stage) if params.get("resume") is not None else None
    settings = resolved.settings if run is None else run.settings
    device = choose_device(params["gpus"], params["device"], reporter)
    dataset = load_dataset(settings.data.dataset, params["root"], reporter)
    reporter.note(check_start(settings))
    refuse_existing(params.get("output"))
    return Start(settings, dataset, device, run)


def refuse_existing(output: Path | None) -> None:
    """Keep from beginning what could not be written in the end.

    Raises:
        CheckpointError: ``output`` exists.
    """
    if output is not None and output.exists():
        raise CheckpointError(
            f"{output} exists already",
            "Choose another --output, or continue an interrupted run with --resume",
        )


def resume_command(stage: str, run: RunFolder, params: Mapping[str, Any], *more: str) -> str:
    """The command line that continues ``run`` on the same machine as this command."""
    words = ["calr", f"train-{stage}", "--resume", str(run.path), *more]
    for name, flag in MACHINE_FLAGS.items():
        if params[name] is not None:
            words += [flag, str(params[name])]
    return shlex.join(words)


@contextmanager
def resumable(*commands: str) -> Iterator[None]:
    """Whatever stops the block says which commands, one after another, go on from there.

    A training that went wrong would go wrong again, so that it gets no such advice.
    """
    try:
        yield
    except TrainingError:
        raise
    except BaseException as error:
        error.add_note(f"resume with: {' && '.join(commands)}")
        raise
