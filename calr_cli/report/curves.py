"""Chooses the figures of the epochs that make each curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from calr_cli.report.figures import Series, curves
from calr_cli.report.record import RunRecord

Row = Mapping[str, Any]

_NO_IDENTITIES = "The identities of the training images are not known."
_NO_DISCARDS = "No image of a known identity was discarded."
_NO_MONITORING = "The test set was not looked at in these epochs (evaluation.monitor_every)."


@dataclass(frozen=True)
class Measure:
    """The curves that one figure shows together.

    Attributes:
        title: Title of the figure.
        keys: Name of each curve -> dotted key of its value in a row.
        missing: Reason why the curves may be missing.
    """

    title: str
    keys: Mapping[str, str]
    missing: str = ""


@dataclass(frozen=True)
class Panel:
    """A figure, or the reason why there is none."""

    title: str
    svg: Markup | None
    missing: str


def _quality(figure: str) -> dict[str, str]:
    return {f"{when} refinement": f"quality.clustered.{when}.{figure}" for when in ("before", "after")}


INTER = (
    Measure("Loss", {"cluster memory": "loss", "camera": "camera_loss"}),
    Measure(
        "mAP and Rank-1 on the test set, %",
        {"mAP": "monitoring.mAP", "Rank-1": "monitoring.Rank-1"},
        _NO_MONITORING,
    ),
    Measure("Criterion, which knows no identities", {"criterion": "criterion"}),
    Measure("Clusters", {"all": "clusters", "without a pivot": "without_pivot"}),
    Measure("Images left out", {"outliers": "outliers", "discarded by refinement": "discarded"}),
    Measure("Label precision, pairs", _quality("pair_precision"), _NO_IDENTITIES),
    Measure("Label recall, pairs", _quality("pair_recall"), _NO_IDENTITIES),
    Measure("Label F, pairs", _quality("pair_f"), _NO_IDENTITIES),
    Measure(
        "Discards that were right, share",
        {"right": "quality.discarded_right"},
        _NO_DISCARDS,
    ),
    Measure(
        "Seconds",
        {"extraction": "seconds.extract", "clustering": "seconds.cluster", "training": "seconds.train"},
    ),
)

INTRA = (
    Measure("Silhouette", {"": "silhouette"}),
    Measure("Loss", {"": "loss"}),
    Measure("Label precision, pairs", {"": "quality.pair_precision"}, _NO_IDENTITIES),
    Measure("Label recall, pairs", {"": "quality.pair_recall"}, _NO_IDENTITIES),
    Measure("Label F, pairs", {"": "quality.pair_f"}, _NO_IDENTITIES),
    Measure("Seconds of training", {"": "seconds.train"}),
)

COMPARED = (
    Measure("mAP on the test set, %", {"": "monitoring.mAP"}, _NO_MONITORING),
    Measure("Loss", {"": "loss"}),
    Measure("Criterion", {"": "criterion"}),
    Measure("Clusters", {"": "clusters"}),
    Measure("Outliers", {"": "outliers"}),
    Measure("Discarded by refinement", {"": "discarded"}),
    Measure("Label F after refinement, pairs", {"": "quality.clustered.after.pair_f"}, _NO_IDENTITIES),
    Measure("Seconds of training", {"": "seconds.train"}),
)


def panels_of(run: RunRecord, name: str) -> list[Panel]:
    """The curves of one run; stage 1 has a line per camera."""
    if run.stage == "inter":
        return [
            _panel(f"{name}-{n}", measure, [(key, run.rows, where) for key, where in measure.keys.items()])
            for n, measure in enumerate(INTER)
        ]
    cameras = sorted({row["camera"] for row in run.rows if "camera" in row})
    parts = {f"camera {c}": [row for row in run.rows if row["camera"] == c] for c in cameras}
    return _one_line_each(name, INTRA, parts)


def compared_panels(runs: Sequence[RunRecord], name: str) -> list[Panel]:
    """The same curves for all runs of stage 2, with a figure for each curve."""
    return _one_line_each(name, COMPARED, {run.name: run.rows for run in runs if run.stage == "inter"})


def _one_line_each(name: str, measures: Sequence[Measure], parts: Mapping[str, list[Any]]) -> list[Panel]:
    return [
        _panel(f"{name}-{n}", measure, [(part, rows, measure.keys[""]) for part, rows in parts.items()])
        for n, measure in enumerate(measures)
    ]


def _panel(name: str, measure: Measure, lines: Sequence[tuple[str, Sequence[Row], str]]) -> Panel:
    series = []
    for title, rows, key in lines:
        known = [(int(row["epoch"]) + 1, value) for row in rows if (value := value_at(row, key)) is not None]
        if known:
            series.append(Series(title, [epoch for epoch, _ in known], [value for _, value in known]))
    if not series:
        some = any(rows for _, rows, _ in lines)
        return Panel(measure.title, None, measure.missing if some else "No epoch has ended yet.")
    return Panel(measure.title, curves(name, measure.title, series), "")


def value_at(row: Row, key: str) -> float | None:
    """The number of a row under the dotted ``key``; None if it has none."""
    value: Any = row
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) else None
