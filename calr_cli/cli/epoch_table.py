"""The columns of the table that training shows, one row per epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Column = tuple[str, int, Callable[[Row], str]]
"""Title, width, and the cell of a row."""


def columns_of(row: Row) -> Sequence[Column]:
    """The columns for this kind of row; the same object for the same kind."""
    return INTRA if "camera" in row else INTER


def _number(value: float | None, pattern: str) -> str:
    return "-" if value is None else format(value, pattern)


def _pair_f(row: Row) -> str:
    if "quality" not in row:
        return "-"
    on_clustered = row["quality"]["clustered"]
    return f"{on_clustered['before']['pair_f']:.3f}>{on_clustered['after']['pair_f']:.3f}"


def _right(row: Row) -> str:
    share = row["quality"]["discarded_right"] if "quality" in row else None
    return "-" if share is None else f"{100 * share:.0f}%"


# Epochs are counted from 0 in files, from 1 for people, as in "epoch 1/50".
INTRA: Sequence[Column] = (
    ("camera", 6, lambda row: str(row["camera"])),
    ("epoch", 5, lambda row: str(row["epoch"] + 1)),
    ("images", 6, lambda row: str(row["images"])),
    ("clusters", 8, lambda row: str(row["clusters"])),
    ("silhouette", 10, lambda row: _number(row["silhouette"], ".4f")),
    ("loss", 6, lambda row: _number(row["loss"], ".3f")),
    ("pair F", 6, lambda row: _number(row.get("quality", {}).get("pair_f"), ".3f")),
    ("seconds", 7, lambda row: f"{sum(row['seconds'].values()):.1f}"),
)

INTER: Sequence[Column] = (
    ("epoch", 5, lambda row: str(row["epoch"] + 1)),
    ("clusters", 8, lambda row: str(row["clusters"])),
    ("outliers", 8, lambda row: str(row["outliers"])),
    ("discarded", 9, lambda row: str(row["discarded"])),
    ("right", 5, _right),
    ("no pivot", 8, lambda row: str(row["without_pivot"])),
    ("loss", 6, lambda row: _number(row["loss"], ".3f")),
    ("camera", 6, lambda row: _number(row["camera_loss"], ".3f")),
    ("pair F", 11, _pair_f),
    ("extract", 7, lambda row: f"{row['seconds']['extract']:.1f}"),
    ("cluster", 7, lambda row: f"{row['seconds']['cluster']:.1f}"),
    ("train s", 7, lambda row: f"{row['seconds']['train']:.1f}"),
)
