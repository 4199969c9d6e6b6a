"""What a run folder says by itself: settings, figures, and how far the run has come."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calr_cli.config.schema import Settings
from calr_cli.errors import CheckpointError
from calr_cli.runs.folder import RunFolder

_LARGEST = 1e30
"""A figure beyond that says only that something went wrong; curves of such figures overflow."""


@dataclass(frozen=True)
class RunRecord:
    """A run as it stands on disk, finished or not.

    Attributes:
        name: What tells it from the others of the same report.
        folder: Where it is.
        stage: ``intra`` or ``inter``.
        settings: What it was told.
        environment: Program, machine, command line; empty where that is not known.
        rows: Figures of the epochs done, without those that are no numbers of any use.
    """

    name: str
    folder: RunFolder
    stage: str
    settings: Settings
    environment: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def finished(self) -> bool:
        """Whether it left what it was run for."""
        return self.folder.is_finished(self.stage)

    @property
    def model(self) -> Path | None:
        """The model to look at: the one to use, or the latest of a run that has not finished."""
        models = (self.folder.model, self.folder.last) if self.stage == "inter" else ()
        return next((model for model in models if model.is_file()), None)

    @property
    def epochs_done(self) -> int:
        """Whole epochs; of stage 1, those that every camera it has begun with has."""
        done: dict[int, int] = {}
        for row in self.rows:
            done[row.get("camera", 0)] = row["epoch"] + 1
        return min(done.values(), default=0)

    @property
    def command(self) -> str:
        """What it was begun with, as it is typed; "" where that is not known."""
        words = self.environment.get("command")
        return shlex.join(["calr", *map(str, words[1:])]) if isinstance(words, list) else ""

    @property
    def status(self) -> str:
        """How far it has come, in a sentence."""
        epochs = (self.settings.inter if self.stage == "inter" else self.settings.intra).epochs
        if self.finished:
            return f"finished after {self.epochs_done} of {epochs} epochs"
        return f"not finished: {self.epochs_done} of {epochs} epochs so far"


def read_runs(paths: Sequence[Path]) -> list[RunRecord]:
    """The runs in ``paths``, each once, named by their folders or, where those are alike, by their paths.

    Raises:
        CheckpointError: No run folder, or one with a file that calr did not write.
        ConfigError: Settings that make no sense.
    """
    folders = list({path.resolve(): path for path in paths}.values())
    names = [path.resolve().name for path in folders]
    alike = len(set(names)) < len(names)
    return [_read_run(path, str(path) if alike else name) for path, name in zip(folders, names, strict=True)]


def _read_run(path: Path, name: str) -> RunRecord:
    folder = RunFolder(path)
    if not folder.config.is_file():
        below = sorted(str(config.parent) for config in path.glob("*/config.yaml"))
        hint = (
            f"Give one of the runs in it: {', '.join(below[:5])}" if below else "Give runs/DATASET/STAGE/NAME"
        )
        raise CheckpointError(f"{path} is not a run folder: it has no config.yaml", hint)
    try:
        environment = folder.read_environment()
    except CheckpointError:  # the curves, the model and the images are there without it
        environment = {}
    stage = environment.get("stage")
    if stage not in ("intra", "inter"):
        environment, stage = {}, "intra" if any(path.glob("cam*/metrics.jsonl")) else "inter"
    rows = [_known(row) for row in folder.read_rows(stage)]
    return RunRecord(name, folder, stage, folder.settings, environment, rows)


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row without numbers that are none, or too large to be drawn."""
    kept = {key: _known(value) if isinstance(value, Mapping) else value for key, value in row.items()}
    return {
        key: value
        for key, value in kept.items()
        if not isinstance(value, int | float) or abs(value) < _LARGEST  # which NaN is not, either
    }
