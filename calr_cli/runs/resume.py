"""Continuing a run: what may have changed since it was begun, and what may not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from calr_cli.config.loading import flat_settings, resolve_settings
from calr_cli.config.schema import Settings
from calr_cli.config.wording import shown
from calr_cli.errors import CheckpointError, ConfigError
from calr_cli.events import Reporter
from calr_cli.runs.environment import continued, differing
from calr_cli.runs.find import open_run
from calr_cli.runs.folder import RunFolder
from calr_cli.runs.images import claim_images
from calr_cli.training.checkpoint import load_state
from calr_cli.training.state import require_current
from calr_cli.types import ImageSet

FIXED = (
    "seed",
    "data.dataset",
    "data.height",
    "data.width",
    "model.",
    "intra.network",
    "inter.start",
    "inter.average",
    "inter.camera.enabled",
    "inter.camera.adversarial_epochs",
)
"""Settings, and sections (their names end with a dot), without which the state of a run makes no sense."""


@dataclass(frozen=True)
class Continuation:
    """A run to go on with; nothing is written yet.

    Attributes:
        run: Its folder.
        settings: What it is told from now on.
        changes: Dotted key -> value before and after, of the settings changed on purpose.
        finished: Whether there is nothing left to do.
    """

    run: RunFolder
    settings: Settings
    changes: Mapping[str, tuple[Any, Any]]
    finished: bool


def plan_continuation(path: Path, stage: str, assignments: Sequence[str]) -> Continuation:
    """How the run in ``path`` goes on, with the settings that ``assignments`` change on purpose.

    Args:
        path: Folder of the run.
        stage: ``intra`` or ``inter``.
        assignments: ``KEY=VALUE`` texts of ``--set``.

    Raises:
        CheckpointError: No run folder, or one of another stage.
        ConfigError: A wrong assignment, a setting that cannot change, or one that changed in the run's
            ``config.yaml`` without an assignment that says so.
    """
    run = open_run(path, stage)
    resolved = resolve_settings(None, run.config, assignments)
    recorded = run.read_environment().get("settings", {})
    before = recorded and {**flat_settings(Settings()), **recorded}  # an older calr had fewer settings
    after = flat_settings(resolved.settings)
    changes = {key: (before[key], after[key]) for key in after if key in before and before[key] != after[key]}
    if fixed := [key for key in changes if key.startswith(FIXED)]:
        raise ConfigError(
            [f"{arrow(key, changes)}: {key} cannot change in a run" for key in fixed], "Start a new one"
        )
    if edited := [key for key in changes if resolved.origins[key] != "--set"]:
        raise ConfigError(
            [f"{run.config} was changed since the run was begun: {arrow(key, changes)}" for key in edited],
            "Give --set KEY=VALUE to change it on purpose, or put the file back",
        )
    finished = run.local_labels.exists()
    if stage == "inter":
        epochs, done = resolved.settings.inter.epochs, run.epochs_done
        if epochs < done:
            raise ConfigError(f"inter.epochs = {epochs}: {done} are done in {run.path} already")
        longer = "inter.epochs" in changes and epochs > done
        finished = run.model.exists() and not longer
    return Continuation(run, resolved.settings, changes, finished)


def nothing_to_resume(plan: Continuation, stage: str) -> CheckpointError:
    """The answer where a finished run is to be continued."""
    return CheckpointError(
        f"the run in {plan.run.path} is finished: there is nothing to resume",
        "To train it for longer: --set inter.epochs=N" if stage == "inter" else "",
    )


def require_resumable(run: RunFolder, images: ImageSet) -> None:
    """Raise unless the run can go on with these training images; asked before anything of it is replaced.

    Raises:
        CheckpointError: The run was begun on other images, or its state is damaged or of an older calr.
    """
    claim_images(run, images)
    for path in (run.state, *sorted(run.path.glob(f"cam*/{run.state.name}"))):
        if path.exists():
            require_current(load_state(path), path)


def begin_continuation(plan: Continuation, devices: Sequence[torch.device], reporter: Reporter) -> RunFolder:
    """Write down that the run goes on, and with what; its folder.

    Args:
        plan: From `plan_continuation`.
        devices: Where it goes on.
        reporter: Told what is not as it was, of that which results depend on.

    Raises:
        OSError: The folder cannot be written.
    """
    run, record = plan.run, plan.run.read_environment()
    if plan.changes:
        reporter.note(f"changed on purpose: {', '.join(arrow(key, plan.changes) for key in plan.changes)}")
        run.write_settings(plan.settings)
    if differences := differing(record, devices):
        reporter.note(
            f"not as the run was begun: {', '.join(differences)}; the last bits of results depend on it"
        )
    entry = {**continued(devices), "changed": plan.changes}
    record |= {"settings": flat_settings(plan.settings), "resumed": [*record.get("resumed", []), entry]}
    run.write_environment(record)
    for result in (run.model, run.evaluation):  # of a finished run that goes on
        result.unlink(missing_ok=True)
    return run


def arrow(key: str, changes: Mapping[str, tuple[Any, Any]]) -> str:
    """``inter.epochs 50 -> 60``."""
    before, after = changes[key]
    return f"{key} {shown(before)} -> {shown(after)}"
