"""Which runs there are, and how far each has come; read without torch, since a list has to be quick."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path

from calr_cli.config.loading import flat_settings
from calr_cli.errors import CheckpointError
from calr_cli.figures import EpochFigures, InterEpoch, epochs_done
from calr_cli.runs.folder import RunFolder


@dataclass(frozen=True)
class RunSummary:
    """A run as its folder tells it.

    Attributes:
        run: The folder.
        dataset: Name of its dataset.
        stage: ``intra`` or ``inter``.
        epochs_done: Whole epochs; of stage 1, those of the camera that has fewest among the ones begun.
        epochs: Epochs asked for.
        camera: That camera, of an unfinished stage 1; None otherwise, and before the first epoch.
        mAP: Of its model in percent, None where nobody looked.
        mAP_epoch: Epochs after which the training itself looked; None where the model was evaluated.
        begun: When.
        written: When its state or figures were written last.
        finished: Whether it left what it was run for. What is not finished may be at work or interrupted.
        resume: The command that goes on with it; "" where it is finished.
    """

    run: Path
    dataset: str
    stage: str
    epochs_done: int
    epochs: int
    camera: int | None
    mAP: float | None  # noqa: N815 - the field's word
    mAP_epoch: int | None  # noqa: N815
    begun: datetime
    written: datetime
    finished: bool
    resume: str


def find_runs(folders: Iterable[Path]) -> Iterator[Path]:
    """The run folders at any depth, each once; links are followed, and nothing is looked for in a run."""
    seen: set[str] = set()
    for path, below, files in chain.from_iterable(os.walk(folder, followlinks=True) for folder in folders):
        is_new, is_run = os.path.realpath(path) not in seen, "environment.json" in files
        seen.add(os.path.realpath(path))
        if is_run or not is_new:
            below.clear()
        if is_run and is_new:
            yield Path(path)


def summarise(path: Path) -> RunSummary:
    """What the run folder ``path`` tells.

    Raises:
        CheckpointError: A file in it cannot be read, or is not as calr wrote it.
        ConfigError: The same of the settings.
    """
    run = RunFolder(path)
    environment = run.read_environment()
    stage = environment["stage"]
    try:
        rows, finished = run.read_stage(stage), run.is_finished(stage)
        done = epochs_done(rows)
        behind = min(done, key=lambda camid: done[camid], default=None)
        settings = environment.get("settings") or flat_settings(run.settings)  # an old version's run
        quality, quality_epoch = _quality(run, rows)
        return RunSummary(
            run=path,
            dataset=settings["data.dataset"],
            stage=stage,
            epochs_done=done.get(behind, 0),
            epochs=settings[f"{stage}.epochs"],
            camera=None if finished else behind,
            mAP=quality,
            mAP_epoch=quality_epoch,
            begun=datetime.fromisoformat(environment["started"]),
            written=_written(run),
            finished=finished,
            resume="" if finished else _resume(path, stage, environment["command"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read: {type(error).__name__} {error}") from None


def _quality(run: RunFolder, rows: Sequence[EpochFigures]) -> tuple[float | None, int | None]:
    """The mAP of the model, or the latest of its training with the number of epochs before it."""
    if run.evaluation.is_file():
        return float(json.loads(run.evaluation.read_text(encoding="utf-8"))["mAP"]), None
    for row in reversed(rows):
        if isinstance(row, InterEpoch) and row.monitoring is not None:
            return row.monitoring.mAP, row.epoch + 1
    return None, None


def _written(run: RunFolder) -> datetime:
    """The time of the file that training wrote last; evaluation and calibration come after it."""
    files = [run.path / "environment.json", run.state, run.metrics]
    for camera in run.path.glob("cam*"):
        files += [RunFolder(camera).state, RunFolder(camera).metrics]
    latest = max(file.stat().st_mtime for file in files if file.exists())
    return datetime.fromtimestamp(latest).astimezone()


def _resume(path: Path, stage: str, command: Sequence[str]) -> str:
    """What goes on with a run that ``command`` began: with ``calr train --output`` it is one of several."""
    if command[1:2] == ["train"] and path.name == stage:
        several = any(word.startswith("--seeds") for word in command)
        return shlex.join(["calr", "train", "--resume", str(path.parent.parent if several else path.parent)])
    return shlex.join(["calr", f"train-{stage}", "--resume", str(path)])
