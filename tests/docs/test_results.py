"""The conclusions of docs/results.md repeat figures of the log below them, and no others."""

from __future__ import annotations

import re

from tests.docs.pages import REPOSITORY

FIGURE = re.compile(r"(?<![\w.,-])[−+]?\d*\.?\d+(?: ± \d+\.\d+)?(?![\w-])")


def figures(text: str) -> set[str]:
    """The numbers of a text; a mean and its deviation are one."""
    return set(FIGURE.findall(re.sub(r"\]\([^)]*\)", "]", text)))


def test_every_figure_of_the_conclusions_is_in_the_log() -> None:
    page = (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
    _, conclusions, log = re.split(r"^## Conclusions$|^The rest of this page is the log\.$", page, flags=re.M)
    assert len(conclusions) < 6500, "one page"
    found = figures(conclusions)
    assert {"66.6 ± 0.9", "+7.8 ± 1.3", "−0.5 ± 1.2", ".468", "13.8"} <= found
    assert not found - figures(log)
