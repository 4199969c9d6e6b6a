"""The examples of the documentation do what they say."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
import torch

from calr_cli.models.encoder import Encoder
from calr_cli.training.checkpoint import ModelCard, save_model
from tests.docs.pages import PAGES, fenced_lines, name
from tests.support.made_up import write_image

PYTHON = {page: [line for line in fenced_lines(page) if line.language == "python"] for page in PAGES}
ELSEWHERE = ("docs/deploy.md", "docs/extend.md", "docs/trackers.md")
"""Pages whose Python is run by a test of their own (test_deploy.py, test_extend.py), or needs trackers."""
WITH_PYTHON = [page for page, lines in PYTHON.items() if lines and name(page) not in ELSEWHERE]


def test_the_page_of_the_library_has_examples() -> None:
    assert [name(page) for page in WITH_PYTHON] == ["docs/api.md"]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a model and ``photos``: four people, so different that no training is needed."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for pid in range(4):
        for n in range(4):
            write_image(Path(f"photos/{pid + 1:04d}_c{n % 2 + 1}_{n}.jpg"), pid, seed=n)
    torch.manual_seed(0)
    card = ModelCard("photos", "inter", 0, "resnet18", "avg", 32, 32)
    save_model(Path("model.pth"), Encoder("resnet18", "avg"), card)


@pytest.mark.usefixtures("photos")
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
