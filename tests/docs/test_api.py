"""The examples of the documentation do what they say."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, fenced_lines, name

PYTHON = {page: [line for line in fenced_lines(page) if line.language == "python"] for page in PAGES}
WITH_PYTHON = [page for page, lines in PYTHON.items() if lines]


def test_the_page_of_the_library_has_examples() -> None:
    assert [name(page) for page in WITH_PYTHON] == ["docs/api.md"]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_examples(page: Path) -> None:
    by_number = {line.number: line.text for line in PYTHON[page]}
    # Blank lines in place of all else keep the page's line numbers in the report.
    text = "\n".join(by_number.get(number, "") for number in range(1, max(by_number) + 1)) + "\n"
    examples = doctest.DocTestParser().get_doctest(text, {}, name(page), str(page), 0)
    assert len(examples.examples) > 20
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(examples, out=report.append)
    assert not report, "".join(report)
