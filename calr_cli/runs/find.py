"""Run folders: made, opened, and looked up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from calr_cli.config.loading import flat_settings
from calr_cli.config.schema import Settings
from calr_cli.errors import CheckpointError
from calr_cli.runs.folder import RunFolder
from calr_cli.runs.places import remember_run, remembered_runs

if TYPE_CHECKING:  # torch takes seconds to import; finding runs does without
    import torch

RUNS = Path("runs")


def create_run(
    settings: Settings, stage: str, devices: Sequence[torch.device], output: Path | None
) -> RunFolder:
    """Make the folder of a new run, with its settings and environment in it.

    Args:
        settings: Of the run.
        stage: ``intra`` or ``inter``.
        devices: Where it will work, for the record.
        output: The folder itself; None names it by date and time under ``runs``.

    Raises:
        CheckpointError: ``output`` exists already, or the folder cannot be made.
    """
    from calr_cli.runs.environment import environment

    path = output or free_name(RUNS / settings.data.dataset / stage)
    try:
        while True:
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:
                if output is not None or not path.is_dir():
                    raise
                path = free_name(path.parent)  # another command took that name at the same moment
        run = RunFolder(path)
        run.write_settings(settings)
        if output is not None:
            remember_run(path, settings.data.dataset, stage)
        run.write_environment({"stage": stage, **environment(devices), "settings": flat_settings(settings)})
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
    """The run in ``path``.

    Raises:
        CheckpointError: No run folder, or one of another stage.
    """
    run = RunFolder(path)
    if not run.config.is_file():
        raise CheckpointError(
            f"{path} is not a run folder: it has no config.yaml", "Give runs/DATASET/STAGE/NAME"
        )
    begun = run.read_environment()["stage"]
    if begun != stage:
        raise CheckpointError(f"{path} is a run of train-{begun}, not of train-{stage}")
    return run


def newest_local_labels(dataset: str, with_model: bool = False) -> Path | None:
    """The local labels of the newest finished stage-1 run of ``dataset``, if there is one.

    Args:
        dataset: Its name.
        with_model: Whether the run has to have a network for all cameras, too.
    """
    files = [*RUNS.glob(f"{dataset}/intra/*/local_labels.csv")]
    known = {file.resolve() for file in files}
    elsewhere = [run / "local_labels.csv" for run in remembered_runs(dataset, "intra")]
    files += [file for file in elsewhere if file.is_file() and file.resolve() not in known]
    return _newest(file for file in files if not with_model or RunFolder(file.parent).model.exists())


def find_model(name: str, dataset: str | None) -> Path:
    """The file that ``name`` means: an existing path, else that file in the newest finished run.

    Raises:
        CheckpointError: Neither is there.
    """
    path = Path(name)
    if path.exists():
        return path
    if path.name == name:
        models = [*RUNS.glob(f"{dataset or '*'}/inter/*/model.pth")]
        known = {model.resolve() for model in models}
        elsewhere = [run / "model.pth" for run in remembered_runs(dataset, "inter")]
        models += [model for model in elsewhere if model.is_file() and model.resolve() not in known]
        finished = [model.parent / name for model in models]
        if newest := _newest(file for file in finished if file.exists()):
            return newest
        where = f"{RUNS}/{dataset or '*'}/inter/*"
        raise CheckpointError(
            f"no file {name} here, nor in a finished run under {where}", "Train first, or give a path"
        )
    raise CheckpointError(f"no file {name}", "Give the model.pth of a finished run")


def _newest(paths: Iterable[Path]) -> Path | None:
    return max(paths, key=lambda path: (path.stat().st_mtime_ns, str(path)), default=None)


def free_name(parent: Path) -> Path:
    """A folder below ``parent`` that is not there yet, named by date and time."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    names = [stamp, *(f"{stamp}-{n}" for n in range(2, 100))]
    return next(parent / name for name in names if not (parent / name).exists())
