"""The one loop over epochs: what it yields, keeps, takes up again and does not do twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from calr_cli.data.samplers import cluster_batches
from calr_cli.data.store import open_pixels
from calr_cli.distributed import collectives
from calr_cli.events import SilentReporter
from calr_cli.method.build import build_encoder, build_networks
from calr_cli.method.epochs import Epoch, Epochs, TrainingImages, tell_idle_ranks
from calr_cli.runs.folder import RunFolder
from calr_cli.training import epoch as training_epoch
from calr_cli.training.epoch import EpochLosses
from calr_cli.training.objective import Objective
from calr_cli.types import Dataset, IntArray
from tests.method.test_recipe_plus import Killed
from tests.support.epoch_figures import inter_epoch, intra_epoch
from tests.support.heard import Heard
from tests.support.small import small_dataset, small_settings

CPU = torch.device("cpu")
SETTINGS = small_settings(inter={"epochs": 2, "iters": 3})


@dataclass(frozen=True)
class Sixths:
    """Labels that need no features."""

    to_train_on: IntArray

    def to_tensors(self) -> dict[str, Tensor]:
        return {"labels": torch.from_numpy(self.to_train_on)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Sixths:
        return cls(tensors["labels"].numpy())


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return small_dataset(tmp_path / "data")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


def begin(
    dataset: Dataset, run: RunFolder, reporter: SilentReporter | None = None, folders: bool = False
) -> Epochs:
    reporter = reporter or SilentReporter()
    images = dataset.train
    pixels = open_pixels(images, height=32, width=32, workers=1, cache="ram", reporter=reporter)
    networks = build_networks(SETTINGS.inter.optimiser, build_encoder(SETTINGS, "inter", CPU))
    cameras = {camid: run.camera(camid) for camid in range(3)} if folders else None
    data = TrainingImages(images, pixels)
    return Epochs(SETTINGS, SETTINGS.inter, ("inter",), data, networks, run, reporter, cameras)


class Made:
    """Makes labels, and counts how often."""

    def __init__(self, count: int) -> None:
        self.count, self.times = count, 0

    def __call__(self) -> Sixths:
        self.times += 1
        return Sixths(np.arange(self.count) // 6)


def train(epoch: Epoch, dataset: Dataset, made: Made) -> EpochLosses:
    assert len(epoch.features()) in (0, len(dataset.train))
    labels = epoch.labels(Sixths, "labels", made).to_train_on
    camids = dataset.train.camids
    batches = cluster_batches(
        labels, camids, batch_size=8, num_instances=2, iterations=3, rng=epoch.rng("batches")
    )
    return epoch.train(Objective(epoch.terms(labels), labels, camids), batches)


def test_every_epoch_once_and_one_more_that_is_over(dataset: Dataset, run: RunFolder) -> None:
    epochs, made, seen = begin(dataset, run), Made(len(dataset.train)), []
    for epoch in epochs:
        seen.append((epoch.number, epoch.is_over))
        if epoch.is_over:
            break
        train(epoch, dataset, made)
        assert epoch.seconds.train > 0
        epoch.end(inter_epoch(epoch.number))
    assert seen == [(0, False), (1, False), (2, True)]
    assert made.times == 2
    assert run.read_epochs() == [inter_epoch(0), inter_epoch(1)]
    resumed = begin(dataset, run)
    assert resumed.is_resumed
    assert [epoch.number for epoch, _ in zip(resumed, range(1), strict=False)] == [2]


def test_an_epoch_that_goes_on_asks_for_no_features_and_no_labels(
    dataset: Dataset, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(len(dataset.train))
    (tmp_path / "whole").mkdir()
    expected = train(next(iter(begin(dataset, RunFolder(tmp_path / "whole")))), dataset, made)
    monkeypatch.setattr(training_epoch, "SAVE_SECONDS", 0)
    with pytest.raises(ConnectionAbortedError):
        train(next(iter(begin(dataset, run, Killed(iterations=3)))), dataset, made)
    times, epochs = made.times, begin(dataset, run)
    epoch = next(iter(epochs))
    assert epochs.state.under_way is not None
    assert len(epochs.state.under_way.losses) == 2  # the third iteration was not saved
    assert epoch.features().size == 0
    assert train(epoch, dataset, made) == expected
    assert made.times == times


def test_figures_of_a_camera_go_into_its_folder_and_resuming_drops_what_was_not_saved(
    dataset: Dataset, run: RunFolder
) -> None:
    epochs = begin(dataset, run, folders=True)
    epoch = next(iter(epochs))
    epoch.features()
    epoch.labels(Sixths, "labels", Made(len(dataset.train)))
    epoch.end(intra_epoch(0, 0), intra_epoch(1, 0))
    run.camera(1).append_metrics(intra_epoch(1, 1))  # of an epoch whose state was never written
    assert run.camera(2).read_epochs() == []
    next(iter(begin(dataset, run, folders=True)))
    assert run.camera(0).read_epochs() == [intra_epoch(0, 0)]
    assert run.camera(1).read_epochs() == [intra_epoch(1, 0)]
    assert not run.metrics.exists()


def test_what_holds_for_every_epoch_is_said_in_the_first(dataset: Dataset, run: RunFolder) -> None:
    reporter = SilentReporter()
    epochs, made = begin(dataset, run, reporter), Made(len(dataset.train))
    said = []
    for epoch in epochs:
        said.append(epoch.once is reporter)
        if epoch.is_over:
            break
        train(epoch, dataset, made)
        epoch.end(inter_epoch(epoch.number))
    assert said == [True, False, False]


@pytest.mark.parametrize(
    ("batch_size", "group_size", "ranks", "line"),
    [
        (
            256,
            64,
            8,
            "4 of 8 devices train: 256 images are 4 group(s) of 64 for batch normalisation; "
            "batch_norm_group_size=32 would use all, with other results",
        ),
        (
            64,
            64,
            4,
            "1 of 4 devices train: 64 images are 1 group(s) of 64 for batch normalisation; "
            "batch_norm_group_size=16 would use all, with other results",
        ),
        (256, 32, 8, None),
        (64, 16, 4, None),
        (64, 0, 4, None),
        (64, 64, 1, None),
    ],
)
def test_devices_without_a_group_are_told(
    monkeypatch: pytest.MonkeyPatch, batch_size: int, group_size: int, ranks: int, line: str | None
) -> None:
    monkeypatch.setattr(collectives, "world_size", lambda: ranks)
    heard = Heard()
    tell_idle_ranks(batch_size, group_size, heard)
    assert heard.notes == ([] if line is None else [line])
