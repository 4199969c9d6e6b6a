"""Remembers where runs went that were given a folder by ``--output``, so that the next command finds them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from calr_cli.files import calr_home


def _file() -> Path:
    return calr_home() / "runs.jsonl"


def remember_run(run: Path, dataset: str, stage: str) -> None:
    """Add a run to those remembered; a folder that cannot be written forgets it, which stops nothing."""
    line = json.dumps({"run": str(run.absolute()), "dataset": dataset, "stage": stage}) + "\n"
    with suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        with _file().open("a", encoding="utf-8") as file:
            file.write(line)  # a short line is appended whole, whoever writes beside


def remembered_runs(dataset: str | None, stage: str) -> list[Path]:
    """The folders of the runs of ``stage`` that are still there, of one dataset or (None) of all."""
    try:
        lines = _file().read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    runs: dict[Path, None] = {}
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):
            record = json.loads(line)
            if record["stage"] == stage and dataset in (None, record["dataset"]):
                runs[Path(record["run"])] = None
    return [run for run in runs if run.is_dir()]
