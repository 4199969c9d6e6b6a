"""The folder of a run: what it holds, and how that is written and read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calr_cli.config.loading import dump_settings, load_settings_file
from calr_cli.config.schema import Settings
from calr_cli.errors import CheckpointError
from calr_cli.figures import EpochFigures, epoch_from_json, epochs_done, to_json
from calr_cli.files import atomic_write, strict_json
from calr_cli.runs.tensorboard import append_event, begin_events


@dataclass(frozen=True)
class RunFolder:
    """One run on disk: ``runs/<dataset>/<stage>/<name>/``, or the folder given by ``--output``."""

    path: Path

    @property
    def state(self) -> Path:
        """What an interrupted run continues from."""
        return self.path / "checkpoint.pth"

    @property
    def last(self) -> Path:
        """The model after the latest finished epoch."""
        return self.path / "last.pth"

    @property
    def selected(self) -> Path:
        """The model with the best criterion so far."""
        return self.path / "selected.pth"

    @property
    def oracle(self) -> Path:
        """The model with the best mAP on the test set so far, where that is asked for."""
        return self.path / "oracle.pth"

    @property
    def model(self) -> Path:
        """The model to use; there once the run has finished."""
        return self.path / "model.pth"

    @property
    def start(self) -> Path:
        """Stage 1's shared network, where stage 2 starts from it."""
        return self.path / "start.pth"

    @property
    def local_labels(self) -> Path:
        """Stage 1's result; there once the run has finished."""
        return self.path / "local_labels.csv"

    @property
    def metrics(self) -> Path:
        """One JSON object per line and epoch."""
        return self.path / "metrics.jsonl"

    @property
    def logs(self) -> Path:
        """What processes other than the first one said, where there are several."""
        return self.path / "logs"

    @property
    def evaluation(self) -> Path:
        """Figures of the model on query and gallery, without re-ranking; there once it was evaluated."""
        return self.path / "evaluation.json"

    @property
    def tensorboard(self) -> Path:
        """What TensorBoard shows; written as long as the folder is there."""
        return self.path / "tensorboard"

    def camera(self, camid: int) -> RunFolder:
        """What stage 1 keeps of one camera."""
        return RunFolder(self.path / f"cam{camid}")

    @property
    def config(self) -> Path:
        """What the run was told; `settings` reads it."""
        return self.path / "config.yaml"

    @property
    def settings(self) -> Settings:
        """What the run was told."""
        return load_settings_file(self.config)

    def write_settings(self, settings: Settings) -> None:
        """Replace what the run was told."""
        with atomic_write(self.config) as temporary:
            temporary.write_text(dump_settings(settings), encoding="utf-8")

    def read_environment(self) -> dict[str, Any]:
        """Stage, settings and machine as they were when the run was begun, and whenever it went on.

        Raises:
            CheckpointError: The file is not as calr wrote it.
        """
        try:
            content = json.loads((self.path / "environment.json").read_text(encoding="utf-8"))
            content["stage"]
        except (OSError, ValueError, KeyError, TypeError):
            raise CheckpointError(
                f"{self.path}/environment.json is not as calr wrote it", "Start a new run"
            ) from None
        found: dict[str, Any] = content
        return found

    def write_environment(self, content: Mapping[str, Any]) -> None:
        """Replace it."""
        with atomic_write(self.path / "environment.json") as temporary:
            temporary.write_text(strict_json(content, indent=2) + "\n", encoding="utf-8")

    def write_selection(self, criteria: Mapping[str, float], selected: int) -> None:
        """Say what was known of the models when one of them was selected: the criterion after each epoch."""
        with atomic_write(self.path / "selection.json") as temporary:
            content = {"criteria": criteria, "selected": selected}
            temporary.write_text(strict_json(content, indent=2) + "\n", encoding="utf-8")

    def write_evaluation(self, figures: Mapping[str, Any]) -> None:
        """Keep what was measured of the model."""
        with atomic_write(self.evaluation) as temporary:
            temporary.write_text(strict_json(figures) + "\n", encoding="utf-8")

    def append_metrics(self, row: EpochFigures) -> None:
        """Add one epoch's figures."""
        content = to_json(row)
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(strict_json(content) + "\n")
        if self.tensorboard.is_dir():
            append_event(self.tensorboard, content)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics`, of all epochs so far; a last one cut short by a crash is left out."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def read_epochs(self) -> list[EpochFigures]:
        """The figures of all epochs so far, in their order.

        Raises:
            CheckpointError: They are not as calr wrote them.
        """
        try:
            return sorted(map(epoch_from_json, self.read_metrics()), key=lambda row: row.epoch)
        except (ValueError, KeyError, TypeError):
            raise CheckpointError(
                f"{self.metrics} is not as calr wrote it", "Delete it to do without its figures"
            ) from None

    def read_stage(self, stage: str) -> list[EpochFigures]:
        """The figures of all epochs so far, of stage 1 those of every camera, camera by camera.

        Raises:
            CheckpointError: They are not as calr wrote them.
        """
        folders = [self]
        if stage == "intra" and not self.metrics.exists():  # they are put together when the stage ends
            folders = [RunFolder(file.parent) for file in sorted(self.path.glob("cam*/metrics.jsonl"))]
        return [row for folder in folders for row in folder.read_epochs()]

    def is_finished(self, stage: str) -> bool:
        """Whether the run left what it was run for."""
        return (self.model if stage == "inter" else self.local_labels).is_file()

    @property
    def epochs_done(self) -> int:
        """Whole epochs of stage 2 so far."""
        return epochs_done(self.read_epochs()).get(None, 0)

    def keep_metrics(self, rows: Sequence[EpochFigures]) -> None:
        """Replace the figures: a resumed run drops those of epochs that it does again."""
        content = [to_json(row) for row in rows]
        with atomic_write(self.metrics) as temporary:
            temporary.write_text("".join(strict_json(row) + "\n" for row in content), encoding="utf-8")
        if self.tensorboard.is_dir():
            begin_events(self.tensorboard, content)
