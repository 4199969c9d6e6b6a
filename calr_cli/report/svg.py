"""A matplotlib figure as SVG that takes its colours from the page."""

from __future__ import annotations

import re
from io import StringIO
from typing import Any

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure

INK, SOFT, FAINT, PANEL = "#f0a1c0", "#f0a1c1", "#f0a1c2", "#f0a1c3"
"""Colours that stand for colours of the page: text, minor points, lines, and the background."""

SERIES = tuple(f"#f0b1c{number}" for number in range(8))
"""Colours of lines, points and bars, readable on the page's light and dark background."""

_VARIABLES = {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    FAINT: "var(--faint)",
    PANEL: "var(--panel)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES)},
}

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "calr",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


class Canvas:
    """A figure to draw on, in the page's style; it has an ``svg`` after the block.

    Args:
        name: Name that is unique on the page.
        alt: Description of the figure, in words.
        width: Width in inches.
        height: Height in inches.
    """

    def __init__(self, name: str, alt: str, width: float, height: float) -> None:
        self.name, self.alt = name, alt
        self.svg = Markup()
        self._style = rc_context(_STYLE)
        self._size = (width, height)

    def __enter__(self) -> Canvas:
        self._style.__enter__()
        self.figure = Figure(figsize=self._size, layout="constrained")
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                file = StringIO()
                metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
                self.figure.savefig(file, format="svg", metadata=metadata)
                self.svg = themed(file.getvalue(), self.name, self.alt)
        finally:
            self._style.__exit__(None, None, None)


def themed(svg: str, name: str, alt: str) -> Markup:
    """The picture as an element of the page, with the page's colours and fonts and with unique ids."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r"(?<=font: )([\d.]+px) [^;\"]+", r"\1 var(--font)", svg)
    referred = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", svg))
    svg = re.sub(r" id=\"([^\"]+)\"", lambda m: f' id="{name}-{m[1]}"' if m[1] in referred else "", svg)
    svg = re.sub(r"(url\(#|href=\"#)", rf"\1{name}-", svg)
    svg = re.sub(r"(<svg\b[^>]*?) width=\"[^\"]*\"", r"\1", svg, count=1)
    svg = re.sub(r"(<svg\b[^>]*?) height=\"[^\"]*\"", r"\1", svg, count=1)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)
    return Markup(re.sub(r"\n\s*", "\n", svg))
