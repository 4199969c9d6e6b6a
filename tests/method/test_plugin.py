"""A loss and a clustering of the user's own, taken in from one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calr_cli.config.schema import Settings
from calr_cli.errors import ConfigError
from calr_cli.events import SilentReporter
from calr_cli.method.inter import label_epoch, train_inter
from calr_cli.method.plugin import checked_labels, load_plugin
from calr_cli.runs.find import create_run
from calr_cli.training import epoch
from calr_cli.training.checkpoint import load_state
from calr_cli.types import Dataset
from tests.method.test_recipe_plus import Killed
from tests.support.features import unit_features
from tests.support.small import small_dataset, small_settings
from tests.support.stages import CPU, assert_same_model, figures

CLUSTERING = """
def cluster(features, camids):
    return [i // 6 for i in range(len(features) - 6)] + [-1] * 6
"""

LOSS = """
import torch

class Pull:
    weight = 2.0
    def __init__(self, rows, labels, camids):
        self.rows = rows.clone()
    @staticmethod
    def start(features, labels, camids):
        return features[:2]
    def losses(self, features, positions):
        return 1 - features @ self.rows[0]
    def update(self, features, positions):
        self.rows[1] = features.mean(dim=0)

loss = Pull
"""


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return small_dataset(tmp_path / "data")


def written(folder: Path, text: str) -> str:
    file = folder / "own.py"
    file.write_text(text, encoding="utf-8")
    load_plugin.cache_clear()
    return str(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (", r"own\.py cannot be run: SyntaxError: "),
        ("1 / 0", r"own\.py cannot be run: ZeroDivisionError: division by zero"),
        ("def clusters(): ...", r"own\.py defines neither cluster nor loss\. Define one of them"),
        ("cluster = 3", r"cluster in .*own\.py is not a function"),
        ("def loss(): ...", r"loss in .*own\.py has to be callable and to have a function start"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^plugin: .*{message}") as caught:
        load_plugin(written(tmp_path, text))
    assert len(caught.value.lines()) == 1


def test_a_file_that_is_not_there_and_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^plugin: no file .*gone\.py\. Give a Python file"):
        load_plugin(str(tmp_path / "gone.py"))
    assert load_plugin(None).names == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], r"cluster gave int64 of shape \(2,\), expected 3 whole numbers"),
        ([0.0, 1.0, 1.0], r"cluster gave float64 of shape \(3,\), expected 3 whole numbers"),
        ([0, 2, 2], r"the labels of cluster have to be -1 for outliers and 0\.\.K-1 without a gap"),
        ([-2, 0, 0], r"the labels of cluster have to be -1"),
    ],
)
def test_labels_that_are_none(labels: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked_labels(labels, 3, "mend it")


def test_an_own_clustering_takes_the_place_of_the_published_one(tmp_path: Path) -> None:
    settings = Settings(plugin=written(tmp_path, CLUSTERING))
    features, camids = unit_features(0, 30), np.arange(30) % 3
    labels = label_epoch(settings, features, camids, np.arange(30), 0, CPU, SilentReporter())
    assert labels.global_labels.tolist() == [i // 6 for i in range(24)] + [-1] * 6
    assert labels.pivots.shape == (4,)
    assert (labels.refined_labels != labels.global_labels).any()  # local labels of one image each


def test_an_own_loss_changes_the_model_and_resumes_to_the_bit(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = small_settings(inter={"epochs": 2, "iters": 4, "refinement": {"enabled": False}})
    own = plain.model_copy(update={"plugin": written(tmp_path, LOSS)})
    whole, without, cut = (
        create_run(settings, "inter", [CPU], tmp_path / name)
        for name, settings in (("whole", own), ("without", plain), ("cut", own))
    )
    for run in (whole, without):
        train_inter(run.settings, dataset, None, run, CPU, SilentReporter())
    assert figures(whole)[0]["loss"] > figures(without)[0]["loss"]
    monkeypatch.setattr(epoch, "SAVE_SECONDS", 0)
    with pytest.raises(ConnectionAbortedError):
        train_inter(own, dataset, None, cut, CPU, Killed(iterations=2))
    rows = load_state(cut.state)["under_way"]["rows"]
    assert rows.keys() == {"memory", "plugin"}
    assert rows["plugin"].shape[0] == 2
    train_inter(own, dataset, None, cut, CPU, SilentReporter())
    assert_same_model(whole.model, cut.model)
    assert figures(whole) == figures(cut)
