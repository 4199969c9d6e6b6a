"""Which model a run gives, when it stops, and what it looks at on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calr_cli.errors import ConfigError, DataError
from calr_cli.method import inter, monitoring
from calr_cli.method.inter import train_inter
from calr_cli.runs.find import create_run
from calr_cli.runs.folder import RunFolder
from calr_cli.training.checkpoint import load_model
from calr_cli.types import Dataset
from tests.support.heard import Heard
from tests.support.killed import CPU
from tests.support.small import small_dataset, small_settings

PLAIN = {"epochs": 4, "iters": 1, "refinement": {"enabled": False}}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return small_dataset(tmp_path / "data")


@pytest.fixture
def criteria(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the criterion says of the models after 0, 1, 2, ... epochs; the test fills it."""
    told: list[float] = []
    given = iter(told)
    monkeypatch.setattr(inter, "label_criterion", lambda *_: next(given))
    return told


def train(dataset: Dataset, folder: Path, reporter: Heard | None = None, **changes: Any) -> RunFolder:
    evaluation = changes.pop("evaluation", {})
    settings = small_settings(inter={**PLAIN, **changes}, evaluation=evaluation)
    run = create_run(settings, "inter", [CPU], folder)
    train_inter(settings, dataset, None, run, CPU, reporter or Heard())
    return run


def epoch_of(file: Path) -> int:
    return load_model(file)[1].epoch


def test_the_best_criterion_is_selected_and_the_first_of_equals(
    dataset: Dataset, tmp_path: Path, criteria: list[float]
) -> None:
    criteria += [9.0, 0.1, 0.5, 0.5, 0.2]  # the untrained model is no candidate
    heard = Heard()
    run = train(dataset, tmp_path / "run", heard)
    assert epoch_of(run.model) == epoch_of(run.selected) == 2
    assert epoch_of(run.last) == 4
    assert json.loads((run.path / "selection.json").read_text()) == {
        "criteria": {"1": 0.1, "2": 0.5, "3": 0.5, "4": 0.2},
        "selected": 2,
    }
    assert [row["criterion"] for row in run.read_metrics()] == criteria[:4]
    assert "model.pth: selected, after 2 of 4 epochs" in heard.notes


def test_the_criterion_of_an_average_lags_behind_as_the_average_does(
    dataset: Dataset, tmp_path: Path, criteria: list[float]
) -> None:
    criteria += [9.0, 0.25, 0.75, 0.625, 0.25]
    run = train(dataset, tmp_path / "run", average=0.5)
    assert json.loads((run.path / "selection.json").read_text()) == {
        "criteria": {"1": 0.25, "2": 0.5, "3": 0.5625, "4": 0.40625},
        "selected": 3,
    }
    assert epoch_of(run.model) == 3


def test_the_last_model_can_be_the_selected_one(
    dataset: Dataset, tmp_path: Path, criteria: list[float]
) -> None:
    criteria += [0.0, 0.1, 0.2, 0.3, 0.4]
    assert epoch_of(train(dataset, tmp_path / "run").model) == 4


def test_last_asks_for_no_criterion_of_the_last_model(
    dataset: Dataset, tmp_path: Path, criteria: list[float]
) -> None:
    criteria += [0.0, 0.9, 0.2, 0.1]  # a fifth would be too many
    run = train(dataset, tmp_path / "run", selection={"model": "last"})
    assert epoch_of(run.model) == 4
    assert not (run.path / "selection.json").exists()


@pytest.mark.parametrize(("patience", "epochs"), [(1, 2), (2, 4), (None, 4)])
def test_patience(
    dataset: Dataset, tmp_path: Path, criteria: list[float], patience: int | None, epochs: int
) -> None:
    criteria += [0.0, 0.5, 0.4, 0.6, 0.1]
    run = train(dataset, tmp_path / "run", selection={"patience": patience})
    assert len(run.read_metrics()) == epochs
    assert epoch_of(run.model) == (1 if epochs == 2 else 3)


def test_the_oracle_looks_at_the_test_set_and_is_called_so(
    dataset: Dataset, tmp_path: Path, criteria: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    criteria += [0.0, 0.1, 0.2, 0.3, 0.4]
    quality = iter([10.0, 30.0, 20.0, 25.0])
    monkeypatch.setattr(
        monitoring, "evaluate", lambda *_, **__: {"mAP": next(quality), "Rank-1": 1.0, "queries": 3}
    )
    heard = Heard()
    selection, evaluation = {"oracle": True}, {"monitor_every": None}
    run = train(dataset, tmp_path / "run", heard, selection=selection, evaluation=evaluation)
    assert epoch_of(run.oracle) == 2
    assert epoch_of(run.model) == 4
    assert [row["monitoring"]["mAP"] for row in run.read_metrics()] == [10, 30, 20, 25]
    assert "monitoring only: mAP 30.0, Rank-1 1.0 on the test set after 2 epochs" in heard.notes
    assert "oracle.pth: oracle, best on the test set, after 2 epochs: mAP 30.0" in heard.notes


def looks(dataset: Dataset, epochs: int, **changes: Any) -> list[int]:
    settings = small_settings(inter={"epochs": epochs, **changes.pop("inter", {})}, evaluation=changes)
    monitor = monitoring.Monitor(settings, dataset, Heard())
    return [epoch for epoch in range(1, epochs + 1) if monitor.is_due(epoch)]


def test_when_the_test_set_is_looked_at(dataset: Dataset) -> None:
    assert looks(dataset, 25, monitor_every=None) == [10, 20, 25]
    assert looks(dataset, 5, monitor_every=2) == [2, 4, 5]
    assert looks(dataset, 5, monitor_every=0) == []
    own = replace(dataset, name="shop")
    assert looks(own, 25, monitor_every=None) == []  # own data: only if asked for
    assert looks(own, 5, monitor_every=5) == [5]
    untested = replace(dataset, query=dataset.query.subset(dataset.query.pids[:0]))
    assert looks(untested, 25, monitor_every=None) == []
    with pytest.raises(DataError, match="nothing to test on"):
        looks(untested, 5, monitor_every=1)
    with pytest.raises(ConfigError, match=r"monitor_every = 0 never does"):
        looks(dataset, 5, monitor_every=0, inter={"selection": {"oracle": True}})
