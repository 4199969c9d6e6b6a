"""Several runs side by side: their figures, the settings in which they differ, and the queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from calr_cli.config.loading import flat_settings
from calr_cli.report.curves import usable
from calr_cli.report.findings import Findings, Labels
from calr_cli.report.record import RunRecord
from calr_cli.report.retrieval import Retrieval


@dataclass(frozen=True)
class Figure:
    """A number of a run with its name, its format and its unit."""

    name: str
    value: float
    pattern: str = ",.0f"
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.value:{self.pattern}}{self.unit}"


@dataclass(frozen=True)
class Cell:
    """A figure of one run, and its difference from the first run's figure."""

    text: str
    change: str


def figures_of(run: RunRecord, findings: Findings) -> list[Figure]:
    """The figures that sum up a run, as far as they are known."""
    found: list[Figure] = []
    if isinstance(findings.retrieval, Retrieval):
        metrics = findings.retrieval.metrics
        found += [Figure("mAP", 100 * metrics.mAP, ".1f", "%")]
        found += [Figure(f"Rank-{r}", 100 * metrics.rank(r), ".1f", "%") for r in (1, 5, 10)]
        found += [Figure("mINP", 100 * metrics.mINP, ".1f", "%")]
    if isinstance(findings.labels, Labels):
        counts = findings.labels.counts
        found += [Figure(key, counts[key]) for key in ("clusters", "outliers", "discarded")]
        if findings.labels.quality:
            quality = findings.labels.quality.clustered.after
            found += [
                Figure("label precision", quality.pair_precision, ".3f"),
                Figure("label recall", quality.pair_recall, ".3f"),
                Figure("label F", quality.pair_f, ".3f"),
            ]
    found.append(Figure("epochs", run.epochs_done))
    minutes = sum(usable(row.seconds.total) or 0 for row in run.rows) / 60
    return [*found, Figure("minutes", minutes, ".1f")]


def side_by_side(columns: Sequence[Sequence[Figure]]) -> list[tuple[str, list[Cell]]]:
    """A row for each figure that any run has, with its change against the first run."""
    names = dict.fromkeys(figure.name for column in columns for figure in column)
    rows = []
    for name in names:
        of_runs = [next((figure for figure in column if figure.name == name), None) for column in columns]
        first = of_runs[0]
        cells = []
        for place, figure in enumerate(of_runs):
            change = ""
            if place and figure is not None and first is not None:
                change = f"{figure.value - first.value:+{figure.pattern}}".replace("-", "−")
            cells.append(Cell("–" if figure is None else str(figure), change))
        rows.append((name, cells))
    return rows


def differing_settings(runs: Sequence[RunRecord]) -> list[tuple[str, list[Any]]]:
    """The settings in which the runs differ, with their values."""
    flat = [flat_settings(run.settings) for run in runs]
    return [
        (key, [settings[key] for settings in flat])
        for key in flat[0]
        if len({repr(settings[key]) for settings in flat}) > 1
    ]
