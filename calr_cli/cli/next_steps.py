"""What to type next: the last lines of a command, on stderr, ready to be copied."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from calr_cli.cli.ranks import is_main
from calr_cli.cli.request import Machine, Request
from calr_cli.errors import TrainingError

if TYPE_CHECKING:
    from calr_cli.method.both import Pair
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


def after_stage_1(run: RunFolder, dataset: str, request: Request, machine: Machine) -> Words:
    """Stage 2 with the same settings, and with these local labels where they would not be found."""
    from calr_cli.runs.find import newest_local_labels

    # A resumed run was not given its dataset by -d; its settings may be of any kind.
    own = request.flags or request.assignments or request.config or request.dataset is None
    recipe = [] if request.recipe is None else ["--recipe", request.recipe]
    words = ["train-inter", *(["--config", str(run.config)] if own else ["-d", dataset, *recipe])]
    newest = newest_local_labels(dataset, run.model.exists())
    if newest is None or newest.resolve() != run.local_labels.resolve():
        words += ["--local-labels", str(run.local_labels)]
    return [*words, *machine.words()]


def after_training(run: RunFolder, dataset: Dataset, machine: Machine) -> list[Words]:
    """Figures, where there are identities to test with; the report; a search."""
    steps: list[Words] = []
    if dataset.has_test_set:
        steps.append(["evaluate", "--resume", str(run.model), *machine.words()])
    return [*steps, report_words(machine, run.path), *search_words(run.model, dataset, machine)]


def after_seeds(runs: Sequence[RunFolder], dataset: Dataset, machine: Machine) -> list[Words]:
    """The report that compares them, and a search with the first model."""
    compared = report_words(machine, *(run.path for run in runs))
    return [compared, *search_words(runs[0].model, dataset, machine)]


def after_evaluation(model: Path, dataset: Dataset, request: Request, machine: Machine) -> list[Words]:
    """The report, if the model is that of a run, and a search."""
    from calr_cli.runs.folder import RunFolder
    from calr_cli.use.embedding import FROM_MODEL

    run = RunFolder(model.parent)
    is_run = run.config.is_file() and model in (run.model, run.last)
    reports = [report_words(machine, run.path)] if is_run else []
    network = {name: request.flags[key][1] for name, key in FROM_MODEL.items() if key in request.flags}
    words = [word for name, value in network.items() for word in (f"--{name}", str(value))]
    return [*reports, *search_words(model, dataset, machine, *words)]  # a foreign file needs them again


def report_words(machine: Machine, *runs: Path) -> Words:
    """A page about runs."""
    return ["report", *map(str, runs), *replace(machine, processes=None).words()]


def search_words(model: Path, dataset: Dataset, machine: Machine, *flags: str) -> list[Words]:
    """A search for one of the dataset's own images in the folder where the others are."""
    gallery, query = (
        (dataset.gallery, dataset.query) if len(dataset.query) else (dataset.train, dataset.train)
    )
    if not len(gallery):
        return []
    folder = Path(os.path.commonpath({(gallery.root / path).parent for path in gallery.paths}))
    words = ["search", "--resume", str(model), "--gallery", short(folder), short(query.root / query.paths[0])]
    return [[*words, *flags, *Machine(device=machine.device).words()]]


def short(path: Path) -> str:
    """The path as seen from here, where it is below."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def resume_command(command: str, folder: Path, machine: Machine, *more: str) -> str:
    """The command line that continues the run in ``folder`` where this command worked."""
    return shlex.join(["calr", command, "--resume", str(folder), *more, *machine.words()])


def commands_left(pair: Pair, machine: Machine) -> list[str]:
    """The commands that go on with runs that have no folder in common, one after another."""
    first, labels = [], []
    if pair.intra is not None and not pair.intra.local_labels.exists():
        first = [resume_command("train-intra", pair.intra.path, machine)]
    if pair.local_labels is not None and not pair.inter.local_labels.exists():  # not handed over yet
        labels = ["--local-labels", str(pair.local_labels)]
    return [*first, resume_command("train-inter", pair.inter.path, machine, *labels)]


@contextmanager
def resumable(commands: Callable[[], Sequence[str]]) -> Iterator[None]:
    """Whatever stops the block says which ``commands``, one after another, go on from there.

    They are asked for when it stops, of the first process: the others may not see the runs. A training that
    went wrong would go wrong again without a change.
    """
    try:
        yield
    except BaseException as error:
        if is_main():
            first, *others = commands()
            change = " --set KEY=VALUE" if isinstance(error, TrainingError) else ""
            error.add_note(f"resume with: {first}{change}{''.join(f' && {more}' for more in others)}")
        raise
