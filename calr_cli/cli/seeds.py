"""The same training with several seeds, and how far the results spread."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from calr_cli.cli.begin import Training
from calr_cli.cli.console import print_paths, print_table
from calr_cli.cli.evaluate import MEASURES
from calr_cli.cli.next_steps import resumable
from calr_cli.cli.pairs import train_pair
from calr_cli.cli.ranks import on_main
from calr_cli.events import Reporter

if TYPE_CHECKING:
    from calr_cli.config.schema import Settings
    from calr_cli.method.both import Pair
    from calr_cli.runs.folder import RunFolder


def train_seeds(training: Training, pairs: Sequence[Pair], reporter: Reporter, again: str) -> dict[str, Any]:
    """Train and evaluate every pair, but for what is finished.

    Args:
        training: Dataset and devices.
        pairs: One for each seed.
        reporter: Hears the progress.
        again: The command that goes on, should this stop.

    Returns:
        ``seeds``: figures and run of each; ``mean`` and ``std`` of the figures, in percent. The figures
        are left out where the dataset has no test identities.

    Raises:
        CalrError: Training or evaluation cannot go on.
    """
    dataset = training.dataset
    tested = dataset.has_test_set
    if not tested:
        reporter.note(f"{dataset.name} has no test images with identities: there are no figures to compare")
    rows = [train_seed(training, pair, tested, reporter, again) for pair in pairs]
    result: dict[str, Any] = {"dataset": dataset.name, "seeds": rows}
    return {**result, **mean_and_spread(rows)} if tested else result


def train_seed(
    training: Training, pair: Pair, tested: bool, reporter: Reporter, again: str
) -> dict[str, Any]:
    """Train a pair and, if ``tested``, evaluate it; its seed, model and figures."""
    run = pair.inter
    settings = on_main(lambda: run.settings)
    reporter.stage(f"seed {settings.seed}")
    train_pair(training, pair, reporter, again)
    row = {"seed": settings.seed, "model": str(run.model)}
    if not tested:
        return row
    with resumable(lambda: [again]):
        return {**row, **evaluate_once(training, settings, run, reporter)}


def evaluate_once(
    training: Training, settings: Settings, run: RunFolder, reporter: Reporter
) -> dict[str, float]:
    """The figures of a finished run of stage 2, measured now or before."""
    from calr_cli.use.evaluating import run_evaluation

    dataset, devices = training.dataset, training.devices
    if on_main(run.evaluation.exists):
        result = on_main(lambda: json.loads(run.evaluation.read_text(encoding="utf-8")))
    else:
        result = run_evaluation(settings, run.model, dataset, False, devices, run.logs, reporter)
        on_main(lambda: run.write_evaluation(result))
    return {measure: result[measure] for measure in MEASURES}


def mean_and_spread(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Mean and sample standard deviation (by N - 1) of every measure; of one row there is no deviation."""
    columns = {measure: [row[measure] for row in rows] for measure in MEASURES}
    return {
        "mean": {measure: mean(values) for measure, values in columns.items()},
        "std": {measure: stdev(values) if len(values) > 1 else None for measure, values in columns.items()},
    }


def show_seeds(result: Mapping[str, Any]) -> None:
    """The figures of each seed, their mean and standard deviation, in percent."""

    def cells(row: Mapping[str, Any]) -> list[str]:
        return ["-" if row[measure] is None else f"{row[measure]:.1f}" for measure in MEASURES]

    if "mean" in result:
        rows = [[str(row["seed"]), *cells(row)] for row in result["seeds"]]
        summary = [[name, *cells(result[name])] for name in ("mean", "std")]
        print_table(["seed", *MEASURES], [*rows, *summary])
    print_paths({f"seed {row['seed']}": row["model"] for row in result["seeds"]})
