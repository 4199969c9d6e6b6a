"""What a run folder says without its model: settings, figures, and the epochs done."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calr_cli.config.schema import Settings
from calr_cli.errors import CheckpointError
from calr_cli.figures import EpochFigures, epochs_done
from calr_cli.runs.folder import RunFolder


@dataclass(frozen=True)
class RunRecord:
    """A run as it stands on disk, finished or not.

    Attributes:
        name: Name that is unique in the report.
        folder: Folder of the run.
        stage: ``intra`` or ``inter``.
        settings: Settings of the run.
        environment: Program, machine, command line; empty if they are not known.
        rows: Figures of the finished epochs.
    """

    name: str
    folder: RunFolder
    stage: str
    settings: Settings
    environment: dict[str, Any]
    rows: Sequence[EpochFigures]

    @property
    def finished(self) -> bool:
        """Whether the run has written its result."""
        return self.folder.is_finished(self.stage)

    @property
    def model(self) -> Path | None:
        """The model to examine: the one to use, or the latest one of an unfinished run."""
        models = (self.folder.model, self.folder.last) if self.stage == "inter" else ()
        return next((model for model in models if model.is_file()), None)

    @property
    def epochs_done(self) -> int:
        """Finished epochs; in stage 1, the epochs that all cameras at work have finished."""
        return min(epochs_done(self.rows).values(), default=0)

    @property
    def command(self) -> str:
        """The command line that started the run, as typed; "" if it is not known."""
        words = self.environment.get("command")
        return shlex.join(["calr", *map(str, words[1:])]) if isinstance(words, list) else ""

    @property
    def status(self) -> str:
        """The progress of the run, in a sentence."""
        epochs = (self.settings.inter if self.stage == "inter" else self.settings.intra).epochs
        if self.finished:
            return f"finished after {self.epochs_done} of {epochs} epochs"
        return f"not finished: {self.epochs_done} of {epochs} epochs so far"


def read_runs(paths: Sequence[Path]) -> list[RunRecord]:
    """The runs in ``paths``, each once, named by their folders or, where those are alike, by their paths.

    Raises:
        CheckpointError: A path is no run folder, or has a file that calr did not write.
        ConfigError: The settings of a run are invalid.
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
    return RunRecord(name, folder, stage, folder.settings, environment, folder.read_stage(stage))
