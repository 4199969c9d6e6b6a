"""Both stages run on a small dataset, and what they gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from calr_cli.config.schema import Settings
from calr_cli.data.local_labels import read_local_labels
from calr_cli.events import SilentReporter
from calr_cli.figures import EpochFigures
from calr_cli.method.inter import train_inter
from calr_cli.method.intra import train_intra
from calr_cli.runs.find import create_run
from calr_cli.runs.folder import RunFolder
from calr_cli.training.checkpoint import load_model
from calr_cli.types import Dataset

CPU = torch.device("cpu")


class Notebook(SilentReporter):
    """Remembers warnings; interrupts after a given number of epochs, as Ctrl-C would."""

    def __init__(self, epochs: int | None = None) -> None:
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.epochs = epochs

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def metric(self, row: EpochFigures) -> None:
        if self.epochs is not None:
            self.epochs -= 1
            if self.epochs == 0:
                raise KeyboardInterrupt


def run_intra(settings: Settings, dataset: Dataset, folder: Path) -> RunFolder:
    run = create_run(settings, "intra", [CPU], folder)
    train_intra(settings, dataset, run, CPU, SilentReporter())
    return run


def run_inter(settings: Settings, dataset: Dataset, labels: Path | None, folder: Path) -> RunFolder:
    run = create_run(settings, "inter", [CPU], folder)
    local = None if labels is None else read_local_labels(labels, dataset.train)
    train_inter(settings, dataset, local, run, CPU, SilentReporter())
    return run


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_model(path)[0].state_dict()


def assert_same_model(a: Path, b: Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def figures(run: RunFolder, *left_out: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in ("seconds", *left_out)} for row in run.read_metrics()]


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
