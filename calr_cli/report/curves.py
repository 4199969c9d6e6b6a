"""Chooses the figures of the epochs that make each curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from markupsafe import Markup

from calr_cli.figures import InterEpoch, IntraEpoch
from calr_cli.report.figures import Series, curves
from calr_cli.report.record import RunRecord

Row = TypeVar("Row", IntraEpoch, InterEpoch)
Line = tuple[str, Sequence[Row], Callable[[Row], float | None]]
"""Title, epochs, and the value of each."""

_LARGEST = 1e30
"""Curves of larger figures overflow."""

_NO_IDENTITIES = "The identities of the training images are not known."
_NO_DISCARDS = "No image of a known identity was discarded."
_NO_MONITORING = "The test set was not looked at in these epochs (evaluation.monitor_every)."


@dataclass(frozen=True)
class Measure(Generic[Row]):
    """The curves that one figure shows together.

    Attributes:
        title: Title of the figure.
        values: Name of each curve -> function from an epoch to the value; None if there is no value.
        missing: Reason why the curves may be missing.
    """

    title: str
    values: Mapping[str, Callable[[Row], float | None]]
    missing: str = ""


@dataclass(frozen=True)
class Panel:
    """A figure, or the reason why there is none."""

    title: str
    svg: Markup | None
    missing: str


def _local(figure: str) -> Mapping[str, Callable[[IntraEpoch], float | None]]:
    return {"": lambda row: None if row.quality is None else getattr(row.quality, figure)}


def _global(when: str, figure: str) -> Callable[[InterEpoch], float | None]:
    return lambda row: None if row.quality is None else getattr(getattr(row.quality.clustered, when), figure)


def _refined(figure: str) -> Mapping[str, Callable[[InterEpoch], float | None]]:
    return {f"{when} refinement": _global(when, figure) for when in ("before", "after")}


def _discarded_right(row: InterEpoch) -> float | None:
    return None if row.quality is None else row.quality.discarded_right


def _map(row: InterEpoch) -> float | None:
    return None if row.monitoring is None else row.monitoring.mAP


def _rank_1(row: InterEpoch) -> float | None:
    return None if row.monitoring is None else row.monitoring.rank_1


INTER: Sequence[Measure[InterEpoch]] = (
    Measure("Loss", {"cluster memory": lambda row: row.loss, "camera": lambda row: row.camera_loss}),
    Measure("mAP and Rank-1 on the test set, %", {"mAP": _map, "Rank-1": _rank_1}, _NO_MONITORING),
    Measure("Criterion, which knows no identities", {"criterion": lambda row: row.criterion}),
    Measure("Clusters", {"all": lambda row: row.clusters, "without a pivot": lambda row: row.without_pivot}),
    Measure(
        "Images left out",
        {"outliers": lambda row: row.outliers, "discarded by refinement": lambda row: row.discarded},
    ),
    Measure("Label precision, pairs", _refined("pair_precision"), _NO_IDENTITIES),
    Measure("Label recall, pairs", _refined("pair_recall"), _NO_IDENTITIES),
    Measure("Label F, pairs", _refined("pair_f"), _NO_IDENTITIES),
    Measure("Discards that were right, share", {"right": _discarded_right}, _NO_DISCARDS),
    Measure(
        "Seconds",
        {
            "extraction": lambda row: row.seconds.extract,
            "clustering": lambda row: row.seconds.cluster,
            "training": lambda row: row.seconds.train,
        },
    ),
)

COLUMNS: Sequence[tuple[Callable[[InterEpoch], float | None], str]] = (
    (lambda row: row.loss, "%.3f"),
    (_map, "%.1f"),
    (lambda row: row.clusters, "%d"),
    (lambda row: row.outliers, "%d"),
    (lambda row: row.discarded, "%d"),
    *(
        (_global(when, f"pair_{figure}"), "%.3f")
        for figure in ("precision", "recall", "f")
        for when in ("before", "after")
    ),
    (lambda row: row.seconds.total, "%.1f"),
)
"""Of the table of epochs: the value of a row, and how it is written."""

INTRA: Sequence[Measure[IntraEpoch]] = (
    Measure("Silhouette", {"": lambda row: row.silhouette}),
    Measure("Loss", {"": lambda row: row.loss}),
    Measure("Label precision, pairs", _local("pair_precision"), _NO_IDENTITIES),
    Measure("Label recall, pairs", _local("pair_recall"), _NO_IDENTITIES),
    Measure("Label F, pairs", _local("pair_f"), _NO_IDENTITIES),
    Measure("Seconds of training", {"": lambda row: row.seconds.train}),
)

COMPARED: Sequence[Measure[InterEpoch]] = (
    Measure("mAP on the test set, %", {"": _map}, _NO_MONITORING),
    Measure("Loss", {"": lambda row: row.loss}),
    Measure("Criterion", {"": lambda row: row.criterion}),
    Measure("Clusters", {"": lambda row: row.clusters}),
    Measure("Outliers", {"": lambda row: row.outliers}),
    Measure("Discarded by refinement", {"": lambda row: row.discarded}),
    Measure("Label F after refinement, pairs", {"": _global("after", "pair_f")}, _NO_IDENTITIES),
    Measure("Seconds of training", {"": lambda row: row.seconds.train}),
)


def panels_of(run: RunRecord, name: str) -> list[Panel]:
    """The curves of one run; stage 1 has a line per camera."""
    if run.stage == "inter":
        rows = _inter(run)
        return [
            _panel(f"{name}-{n}", measure, [(title, rows, value) for title, value in measure.values.items()])
            for n, measure in enumerate(INTER)
        ]
    rows_of: dict[int, list[IntraEpoch]] = {}
    for row in run.rows:
        if isinstance(row, IntraEpoch):
            rows_of.setdefault(row.camera, []).append(row)
    return _one_line_each(name, INTRA, {f"camera {c}": rows_of[c] for c in sorted(rows_of)})


def compared_panels(runs: Sequence[RunRecord], name: str) -> list[Panel]:
    """The same curves of all runs of stage 2, a figure for each."""
    return _one_line_each(name, COMPARED, {run.name: _inter(run) for run in runs if run.stage == "inter"})


def _inter(run: RunRecord) -> list[InterEpoch]:
    return [row for row in run.rows if isinstance(row, InterEpoch)]


def _one_line_each(
    name: str, measures: Sequence[Measure[Row]], parts: Mapping[str, Sequence[Row]]
) -> list[Panel]:
    return [
        _panel(f"{name}-{n}", measure, [(part, rows, measure.values[""]) for part, rows in parts.items()])
        for n, measure in enumerate(measures)
    ]


def _panel(name: str, measure: Measure[Row], lines: Sequence[Line[Row]]) -> Panel:
    series = []
    for title, rows, value_of in lines:
        known = [(row.epoch + 1, value) for row in rows if (value := usable(value_of(row))) is not None]
        if known:
            series.append(Series(title, [epoch for epoch, _ in known], [value for _, value in known]))
    if not series:
        some = any(rows for _, rows, _ in lines)
        return Panel(measure.title, None, measure.missing if some else "No epoch has ended yet.")
    return Panel(measure.title, curves(name, measure.title, series), "")


def usable(value: float | None) -> float | None:
    """The value, or None if it is no number or so large that only its presence says something went wrong."""
    return value if value is not None and abs(value) < _LARGEST else None  # NaN is not below it
