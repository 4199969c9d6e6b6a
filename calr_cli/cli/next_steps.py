"""What to type next: the last lines of a command, on stderr, ready to be copied."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calr_cli.cli.options import setting_flags
from calr_cli.cli.ranks import is_main

if TYPE_CHECKING:
    from calr_cli.runs.folder import RunFolder
    from calr_cli.types import Dataset

Words = Sequence[str]


def print_next(quiet: bool, *commands: Words) -> None:
    """A line for each command, unbroken and quoted for a shell; nothing if ``quiet``."""
    if quiet or not is_main():
        return
    sys.stdout.flush()  # where both streams end in one file, the results come first
    for place, words in enumerate(commands):
        sys.stderr.write(f"{'     ' if place else 'next:'} {shlex.join(['calr', *words])}\n")


def after_stage_1(run: RunFolder, dataset: str, params: Mapping[str, Any]) -> Words:
    """Stage 2 with the same settings, and with these local labels where they would not be found."""
    from calr_cli.runs.find import newest_local_labels

    own = setting_flags(params, "intra") or any(params[name] for name in ("set_", "config", "resume"))
    same = ["--config", str(run.config)] if own else ["-d", dataset, *flags_again(params, "recipe")]
    words = ["train-inter", *same]
    if newest_local_labels(dataset, run.model.exists()) != run.local_labels:
        words += ["--local-labels", str(run.local_labels)]
    return [*words, *flags_again(params, "gpus", "device", "processes", "root")]


def after_training(run: RunFolder, dataset: Dataset, params: Mapping[str, Any]) -> list[Words]:
    """Figures, where there are identities to test with; the report; a search."""
    steps: list[Words] = []
    if is_tested(dataset):
        where = flags_again(params, "gpus", "device", "processes", "root")
        steps.append(["evaluate", "--resume", str(run.model), *where])
    return [*steps, report_words(params, run.path), *search_words(run.model, dataset, params)]


def after_seeds(runs: Sequence[RunFolder], dataset: Dataset, params: Mapping[str, Any]) -> list[Words]:
    """The report that compares them, and a search with the first model."""
    compared = report_words(params, *(run.path for run in runs))
    return [compared, *search_words(runs[0].model, dataset, params)]


def after_evaluation(model: Path, dataset: Dataset, params: Mapping[str, Any]) -> list[Words]:
    """The report, if the model is that of a run, and a search."""
    from calr_cli.runs.folder import RunFolder

    run = RunFolder(model.parent)
    is_run = run.config.is_file() and model in (run.model, run.last)
    reports = [report_words(params, run.path)] if is_run else []
    network = ("arch", "pooling", "height", "width")  # what a file of another program does not say
    return [*reports, *search_words(model, dataset, params, *network)]


def is_tested(dataset: Dataset) -> bool:
    """Whether there are images with identities to measure a model on."""
    return dataset.query.has_identities and dataset.gallery.has_identities


def report_words(params: Mapping[str, Any], *runs: Path) -> Words:
    """A page about runs."""
    return ["report", *map(str, runs), *flags_again(params, "gpus", "device", "root")]


def search_words(model: Path, dataset: Dataset, params: Mapping[str, Any], *flags: str) -> list[Words]:
    """A search for one of the dataset's own images in the folder where the others are."""
    gallery, query = (
        (dataset.gallery, dataset.query) if len(dataset.query) else (dataset.train, dataset.train)
    )
    if not len(gallery):
        return []
    folder = Path(os.path.commonpath({(gallery.root / path).parent for path in gallery.paths}))
    words = ["search", "--resume", str(model), "--gallery", short(folder), short(query.root / query.paths[0])]
    return [[*words, *flags_again(params, *flags, "device")]]


def short(path: Path) -> str:
    """The path as seen from here, where it is below."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def flags_again(params: Mapping[str, Any], *names: str) -> list[str]:
    """Those of these flags that this command was given."""
    given = [name for name in names if params.get(name) is not None]
    return [word for name in given for word in (f"--{name}", str(params[name]))]
