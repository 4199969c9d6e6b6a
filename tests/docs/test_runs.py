"""The page of the files of a run lists the keys that a run writes, all of them and no others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from itertools import product
from typing import Any

import pytest

from calr_cli.events import SilentReporter
from calr_cli.figures import LabelQuality
from calr_cli.method.evaluate import evaluate
from calr_cli.prepare.prepared import load_dataset
from calr_cli.training.checkpoint import load_model
from tests.docs.pages import REPOSITORY
from tests.report.conftest import Trained, trained, trained_once  # noqa: F401 - fixtures

PAGE = (REPOSITORY / "docs" / "runs.md").read_text(encoding="utf-8")


def documented(title: str) -> set[str]:
    """The keys in the first column of the table after ``title``, braces and ``*`` written out."""
    table = re.search(rf"^{re.escape(title)}\n\n(?:[^|#\n].*\n|\n)*((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert table, title
    cells = [line.split("|")[1] for line in table[1].splitlines()[2:]]
    patterns = [pattern for cell in cells for pattern in re.findall(r"`([^`]+)`", cell)]
    return {key for pattern in patterns for key in written_out(pattern)}


def written_out(pattern: str) -> Iterator[str]:
    choices = [part.split(",") for part in re.split(r"\{(.*?)\}", pattern)]
    for words in product(*choices):
        key = "".join(words)
        figures = documented("Label quality:") if key.endswith("*") else {""}
        yield from (key.removesuffix("*") + figure for figure in figures)


def written(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from written(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_the_table_of_a_pattern() -> None:
    assert set(written_out("a.{b,c}.d")) == {"a.b.d", "a.c.d"}
    assert documented("Label quality:") == {field.name for field in fields(LabelQuality)}


@pytest.mark.parametrize(("stage", "title"), [("intra", "Stage 1:"), ("inter", "Stage 2:")])
def test_keys_of_an_epoch(trained: Trained, stage: str, title: str) -> None:  # noqa: F811
    rows = getattr(trained, stage).read_metrics()
    assert {key for row in rows for key in written(row)} == documented(title)


def test_keys_of_the_other_files(trained: Trained) -> None:  # noqa: F811
    run = trained.inter
    environment = run.read_environment()
    assert {*environment, "git", "resumed", "images"} == documented("### `environment.json`")
    selection = json.loads((run.path / "selection.json").read_text())
    assert selection.keys() == documented("### `selection.json`")
    figures = evaluate(
        run.settings, load_model(run.model)[0], load_dataset("market1501"), False, SilentReporter()
    )
    assert figures.keys() == documented("### `evaluation.json`")
