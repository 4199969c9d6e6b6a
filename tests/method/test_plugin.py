"""A loss and a clustering of the user's own, taken in from one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from calr_cli.config.schema import Settings
from calr_cli.errors import ConfigError
from calr_cli.events import SilentReporter
from calr_cli.method.inter import label_epoch, train_inter
from calr_cli.method.plugin import OwnLoss, checked_labels, load_plugin
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


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ("return features.sum()", r"losses in .*own\.py gave a tensor \(\), expected a tensor \(2,\) that"),
        (
            "return torch.ones(2)",
            r"losses in .*own\.py gave a tensor \(2,\), expected a tensor \(2,\) that depends",
        ),
        ("return features", r"losses in .*own\.py gave a tensor \(2, 4\), expected"),
        ("return 3", r"losses in .*own\.py gave int, expected"),
        ("return features[9]", r"losses in .*own\.py, line 12: IndexError: "),
        ("exit(0)", r"losses in .*own\.py, line 12: SystemExit: 0\. Mend the file"),
    ],
)
def test_losses_that_are_none_are_told(tmp_path: Path, losses: str, message: str) -> None:
    path = written(tmp_path, LOSS.replace("return 1 - features @ self.rows[0]", losses))
    own = load_plugin(path).loss
    assert own is not None
    term = OwnLoss(own, path)(torch.eye(4)[:2], np.zeros(3, np.int64), np.zeros(3, np.int64))
    with pytest.raises(ConfigError, match=f"^plugin: {message}") as caught:
        term.losses(torch.ones(2, 4, requires_grad=True), np.array([0, 1]))
    assert len(caught.value.lines()) == 1


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("features[:2]", "features[0]", r"start in .*own\.py gave shape \(4,\), expected \(R, D\)"),
        ("features[:2]", "features / 0", r"start in .*own\.py gave shape \(3, 4\), expected"),
        ("features[:2]", "torch.eye(4)", None),
        ("weight = 2.0", "weight = 'much'", r"weight in .*own\.py: ValueError"),
        ("def update", "def renew", r"what loss gives in .*own\.py has no update"),
        ("rows, labels, camids):", "rows):", r"loss in .*own\.py: TypeError"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value|divide by zero")
def test_a_loss_that_lacks_something_is_told(
    tmp_path: Path, before: str, after: str, message: str | None
) -> None:
    path = written(tmp_path, LOSS.replace(before, after))
    own = load_plugin(path).loss
    assert own is not None
    loss, labels = OwnLoss(own, path), np.zeros(3, np.int64)

    def use() -> None:
        rows = loss.start(np.zeros((3, 4), np.float32), labels, labels)
        loss(torch.from_numpy(rows), labels, labels)

    if message is None:
        use()
    else:
        with pytest.raises(ConfigError, match=f"^plugin: {message}"):
            use()


def test_a_clustering_that_fails_names_its_line(tmp_path: Path) -> None:
    settings = Settings(
        plugin=written(tmp_path, "def cluster(features, camids):\n    return features[1000]\n")
    )
    with pytest.raises(ConfigError, match=r"^plugin: cluster in .*own\.py, line 2: IndexError"):
        label_epoch(
            settings, unit_features(0, 9), np.zeros(9, int), np.zeros(9, int), 0, CPU, SilentReporter()
        )
