"""The folder of a run: what it holds, how it is found again."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from calr_cli import __version__
from calr_cli.config.loading import dump_settings, load_settings_file
from calr_cli.config.schema import Settings
from calr_cli.errors import CheckpointError
from calr_cli.files import atomic_write

RUNS = Path("runs")

_PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-learn",
    "infomap",
    "faiss-gpu",
    "faiss-cpu",
    "pillow",
)


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
    def model(self) -> Path:
        """The model to use; there once the run has finished."""
        return self.path / "model.pth"

    @property
    def local_labels(self) -> Path:
        """Stage 1's result; there once the run has finished."""
        return self.path / "local_labels.csv"

    @property
    def metrics(self) -> Path:
        """One JSON object per line and epoch."""
        return self.path / "metrics.jsonl"

    @property
    def settings(self) -> Settings:
        """What the run was told."""
        return load_settings_file(self.path / "config.yaml")

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add one epoch's figures."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The figures of all epochs so far; a last line cut short by a crash is left out."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def keep_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Replace the figures: a resumed run drops those of epochs that it does again."""
        with atomic_write(self.metrics) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def create_run(settings: Settings, stage: str, device: torch.device, output: Path | None) -> RunFolder:
    """Make the folder of a new run, with its settings and environment in it.

    Args:
        settings: What the run is told.
        stage: ``intra`` or ``inter``.
        device: Where it will work, for the record.
        output: The folder itself; None names it by date and time under ``runs``.

    Raises:
        CheckpointError: ``output`` exists already, or the folder cannot be made.
    """
    path = output or _free_name(RUNS / settings.data.dataset / stage)
    try:
        path.mkdir(parents=True)
        run = RunFolder(path)
        (path / "config.yaml").write_text(dump_settings(settings), encoding="utf-8")
        (path / "environment.json").write_text(
            json.dumps({"stage": stage, **_environment(device)}, indent=2) + "\n", encoding="utf-8"
        )
    except FileExistsError:
        raise CheckpointError(
            f"{path} exists already",
            "Choose another --output, or continue an interrupted run with --resume",
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"cannot make the run folder {path}: {error.strerror}", "Choose a writable --output"
        ) from None
    return run


def open_run(path: Path, stage: str) -> RunFolder:
    """The interrupted run in ``path``.

    Raises:
        CheckpointError: No run folder, one of another stage, or one that is finished.
    """
    run = RunFolder(path)
    if not (path / "config.yaml").is_file():
        raise CheckpointError(
            f"{path} is not a run folder: it has no config.yaml", "Give runs/DATASET/STAGE/NAME"
        )
    try:
        begun = json.loads((path / "environment.json").read_text(encoding="utf-8"))["stage"]
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path}/environment.json is not as calr wrote it", "Start a new run") from None
    if begun != stage:
        raise CheckpointError(f"{path} is a run of train-{begun}, not of train-{stage}")
    if (run.model if stage == "inter" else run.local_labels).exists():
        raise CheckpointError(f"the run in {path} is finished: there is nothing to resume")
    return run


def newest_local_labels(dataset: str) -> Path | None:
    """The local labels of the newest finished stage-1 run of ``dataset``, if there is one."""
    return _newest(RUNS.glob(f"{dataset}/intra/*/local_labels.csv"))


def find_model(name: str, dataset: str | None) -> Path:
    """The file that ``name`` means: an existing path, else that file in the newest finished run.

    Raises:
        CheckpointError: Neither is there.
    """
    path = Path(name)
    if path.exists():
        return path
    if path.name == name:
        finished = [
            run / name for run in (p.parent for p in RUNS.glob(f"{dataset or '*'}/inter/*/model.pth"))
        ]
        if found := _newest(file for file in finished if file.exists()):
            return found
        where = f"{RUNS}/{dataset or '*'}/inter/*"
        raise CheckpointError(
            f"no file {name} here, nor in a finished run under {where}", "Train first, or give a path"
        )
    raise CheckpointError(f"no file {name}", "Give the model.pth of a finished run")


def _newest(paths: Any) -> Path | None:
    return max(paths, key=lambda path: (path.stat().st_mtime_ns, str(path)), default=None)


def _free_name(parent: Path) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    names = [stamp, *(f"{stamp}-{n}" for n in range(2, 100))]
    return next(parent / name for name in names if not (parent / name).exists())


def _environment(device: torch.device) -> dict[str, Any]:
    return {
        "calr": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "command": sys.argv,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
