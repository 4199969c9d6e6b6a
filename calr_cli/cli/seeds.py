"""The same training with several seeds, and how far the results spread."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from calr_cli.cli.begin import Training
from calr_cli.cli.console import print_paths, print_table
from calr_cli.cli.evaluate import MEASURES
from calr_cli.cli.next_steps import resumable
from calr_cli.cli.pairs import Pair, train_pair, with_settings_of
from calr_cli.cli.ranks import on_main
from calr_cli.events import Reporter


def train_seeds(training: Training, pairs: Sequence[Pair], reporter: Reporter, resume: str) -> dict[str, Any]:
    """Train and evaluate every pair, but for what is finished.

    Args:
        training: Dataset and devices.
        pairs: One for each seed.
        reporter: Told what happens.
        resume: The command that goes on, should this stop.

    Returns:
        ``seeds``: figures and run of each; ``mean`` and ``std`` of the figures, in percent. The figures
        are left out where the dataset has no test identities.

    Raises:
        CalrError: Training or evaluation cannot go on.
    """
    dataset = training.dataset
    tested = dataset.query.has_identities and dataset.gallery.has_identities
    if not tested:
        reporter.note(f"{dataset.name} has no test images with identities: there are no figures to compare")
    rows: list[dict[str, Any]] = []
    for pair in pairs:
        reporter.stage(f"seed {pair.seed}")
        train_pair(training, pair, reporter, resume)
        row: dict[str, Any] = {"seed": pair.seed, "model": str(pair.inter.model)}
        if tested:
            with resumable(resume):
                row |= evaluate_once(training, pair, reporter)
        rows.append(row)
    result: dict[str, Any] = {"dataset": dataset.name, "seeds": rows}
    return {**result, **mean_and_spread(rows)} if tested else result


def evaluate_once(training: Training, pair: Pair, reporter: Reporter) -> dict[str, float]:
    """The figures of a finished pair, measured now or before."""
    from calr_cli.use.evaluating import run_evaluation

    run = pair.inter
    if on_main(run.evaluation.exists):
        result = on_main(lambda: json.loads(run.evaluation.read_text(encoding="utf-8")))
    else:
        told = with_settings_of(run, training).settings
        result = run_evaluation(
            told, run.model, training.dataset, False, training.devices, run.logs, reporter
        )
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
