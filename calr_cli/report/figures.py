"""Draws curves, maps and histograms; colour is never the only difference between two things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from calr_cli.report.svg import INK, PANEL, SERIES, SOFT, Canvas
from calr_cli.types import FloatArray, IntArray

_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_MOST_MARKERS = 15
_MOST_BINS = 60
_LEGEND = 4


@dataclass(frozen=True)
class Series:
    """A curve: its name, the numbers of epochs after which it has a value, and the values."""

    name: str
    epochs: list[int]
    values: list[float]


@dataclass(frozen=True)
class Group:
    """Points of a map that belong together."""

    name: str
    points: FloatArray
    label: str = ""


def curves(name: str, title: str, series: Sequence[Series]) -> Markup:
    """A plot of values over epochs."""
    alt = "; ".join(
        f"{one.name or title} {one.values[0]:.4g} in epoch {one.epochs[0]}"
        f" and {one.values[-1]:.4g} in epoch {one.epochs[-1]}"
        for one in series
    )
    with Canvas(name, f"{title} over epochs. {alt}", 4.2, 2.7 + 0.17 * ((len(series) - 1) // 3)) as canvas:
        axes = canvas.figure.add_subplot()
        for number, one in enumerate(series):
            axes.plot(
                one.epochs,
                one.values,
                color=SERIES[number % len(SERIES)],
                linestyle=_DASHES[number % len(_DASHES)],
                marker=_MARKERS[number % len(_MARKERS)],
                markersize=4,
                markevery=max(1, len(one.epochs) // _MOST_MARKERS),
                linewidth=1.7,
                label=one.name,
            )
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y")
        if len(series) > 1:
            canvas.figure.legend(loc="outside lower center", ncols=min(3, len(series)), handlelength=3)
    return canvas.svg


def scatter(name: str, alt: str, groups: Sequence[Group], rest: FloatArray | None = None) -> Markup:
    """A map of points in groups; each group has its own shape, and a label at its middle or a name below."""
    rows = 0 if any(one.label for one in groups) else -(-len(groups) // _LEGEND)
    with Canvas(name, alt, 4.8, 4.4 + 0.22 * rows) as canvas:
        axes = canvas.figure.add_subplot()
        if rest is not None:
            _points(axes, Group("", rest), SOFT, ".", 7)
        for number, one in enumerate(groups):
            colour = SERIES[number % len(SERIES)]
            marker = _MARKERS[(number + number // len(SERIES)) % len(_MARKERS)]
            _points(axes, one, colour, marker, 13)
        for one in groups:
            if one.label:
                x, y = np.median(one.points, axis=0)
                box = {"boxstyle": "round,pad=0.15", "facecolor": PANEL, "edgecolor": INK, "linewidth": 0.6}
                axes.text(x, y, one.label, ha="center", va="center", fontsize=8, bbox=box)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        if rows:
            canvas.figure.legend(
                loc="outside lower center", ncols=_LEGEND, handletextpad=0.2, columnspacing=1, markerscale=1.4
            )
    return canvas.svg


def _points(axes: Axes, group: Group, colour: str, marker: str, size: float) -> None:
    x, y = group.points.T
    axes.scatter(x, y, s=size, color=colour, marker=marker, linewidths=0, label=group.name)


def histogram(
    name: str,
    alt: str,
    edges: npt.NDArray[np.float64],
    counts: Sequence[tuple[str, IntArray]],
    marks: Sequence[tuple[str, float]] = (),
) -> Markup:
    """The distributions of the groups over the same bins, each with area 1, and lines at ``marks``."""
    edges, folded = fold(edges, [count for _, count in counts])
    with Canvas(name, alt, 6.4, 2.9) as canvas:
        axes = canvas.figure.add_subplot()
        for (label, _), count, colour, dashes in zip(counts, folded, SERIES, cycle(_DASHES)):
            density = count / max(int(count.sum()), 1) / np.diff(edges)
            axes.stairs(density, edges, fill=True, color=colour, alpha=0.22, linewidth=0)
            axes.stairs(density, edges, color=colour, linestyle=dashes, linewidth=1.8, label=label)
        for label, place in marks:
            axes.axvline(place, color=INK, linestyle=(0, (1, 1)), linewidth=1.4, label=label)
        axes.set_xlabel("cosine similarity")
        axes.set_ylabel("density")
        axes.grid(axis="y")
        canvas.figure.legend(loc="outside lower center", ncols=3, handlelength=3)
    return canvas.svg


def fold(
    edges: npt.NDArray[np.float64], counts: Sequence[IntArray]
) -> tuple[npt.NDArray[np.float64], list[IntArray]]:
    """The range of bins that is not empty; bins are joined if there are too many to see."""
    some = np.flatnonzero(np.sum(counts, axis=0))
    first, last = (int(some[0]), int(some[-1]) + 1) if len(some) else (0, 1)
    several = -(-(last - first) // _MOST_BINS)
    starts = np.arange(first, last, several)
    return edges[np.append(starts, last)], [np.add.reduceat(count[:last], starts) for count in counts]
