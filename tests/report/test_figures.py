"""Figures take their colours from the page and say in words what they show."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from markupsafe import Markup

from calr_cli.report.figures import Group, Series, curves, fold, histogram, scatter

POINTS = np.arange(8, dtype=np.float32).reshape(4, 2)


def drawn() -> dict[str, Markup]:
    """One of each kind, under names that a page would give them."""
    counts = np.zeros(400, np.int64)
    counts[150:300] = np.arange(150)
    lines = [Series("first", [1, 2, 3], [3, 2, 1]), Series('<b> & "b"', [2], [0.5])]
    groups = [Group("camera 0", POINTS), Group("camera 1", POINTS + 1)]
    labelled = [Group("cluster 7", POINTS, "7")]
    edges = np.linspace(-1, 1, 401)
    return {
        "curves": curves("curves", "Loss", lines),
        "cameras": scatter("cameras", "By camera", groups),
        "clusters": scatter("clusters", "By cluster", labelled, POINTS),
        "pairs": histogram("pairs", 'Of "pairs"', edges, [("same", counts), ("different", counts[::-1])]),
    }


@pytest.mark.parametrize("name", ["curves", "cameras", "clusters", "pairs"])
def test_a_figure_is_a_well_formed_part_of_the_page(name: str) -> None:
    svg = drawn()[name]
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert root.get("width") is None
    ids = re.findall(r' id="([^"]+)"', svg)
    assert all(one.startswith(f"{name}-") for one in ids)
    referred = re.findall(r"(?:url\(#|href=\"#)([^\")]+)", svg)
    assert set(referred) == set(ids)
    assert "var(--ink)" in svg
    assert "var(--series-0)" in svg
    assert not re.search(r"#[0-9a-f]{6}\b", svg), "a colour that is the same by day and by night"


def test_the_alternative_text_says_where_curves_begin_and_end() -> None:
    alt = ElementTree.fromstring(drawn()["curves"]).get("aria-label")
    assert alt is not None
    first, second = alt.removeprefix("Loss over epochs. ").split("; ")
    assert first == "first 3 in epoch 1 and 1 in epoch 3"
    assert second == '<b> & "b" 0.5 in epoch 2 and 0.5 in epoch 2'


def test_two_groups_differ_in_more_than_colour() -> None:
    assert "stroke-dasharray" in drawn()["curves"]
    shapes = re.findall(r'<path id="cameras-[^"]+" d="([^"]+)"', drawn()["cameras"])
    assert len(set(shapes)) > 1


def test_the_histogram_keeps_every_pair() -> None:
    """Bins are folded to what can be seen: none may be lost at the ends."""
    for first, last in ((0, 400), (3, 397), (199, 200), (0, 63), (331, 400)):
        counts = np.zeros(400, np.int64)
        counts[first:last] = 1
        edges, folded = fold(np.linspace(-1, 1, 401), [counts])
        assert folded[0].sum() == last - first
        assert len(edges) - 1 == len(folded[0]) <= 80


def test_figures_are_the_same_again() -> None:
    assert drawn() == drawn()
