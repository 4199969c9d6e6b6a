"""A dataset that was prepared again has other images: nothing learnt by position may go to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from calr_cli.errors import CheckpointError
from calr_cli.events import SilentReporter
from calr_cli.method.both import Pair, find_local_labels, train_both
from calr_cli.method.evaluate import is_of_these_images
from calr_cli.method.inter import train_inter
from calr_cli.method.intra import train_intra
from calr_cli.prepare.prepared import load_dataset
from calr_cli.prepare.published import prepare_dataset
from calr_cli.runs.find import create_run
from calr_cli.runs.images import claim_images, warn_of_other_images
from calr_cli.training.checkpoint import load_model
from calr_cli.types import Dataset
from tests.method.test_recipe_plus import Killed
from tests.support.heard import Heard
from tests.support.small import small_dataset, small_settings

CPU = torch.device("cpu")
PLAIN = small_settings(inter={"epochs": 2, "refinement": {"enabled": False}})


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return small_dataset(tmp_path / "data")


def encoded_again(dataset: Dataset, root: Path) -> Dataset:
    """The same pictures in other files: their digests, and so their order, are others."""
    for path in dataset.train.paths:
        file = dataset.train.root / path
        with Image.open(file) as image:
            image.load()
            image.save(file, quality=60)
    prepare_dataset("market1501", root, SilentReporter())
    return load_dataset("market1501")


def test_the_fingerprint_is_of_images_cameras_and_order(dataset: Dataset) -> None:
    train = dataset.train
    others = [
        train.subset(np.arange(len(train) - 1)),
        train.subset(np.arange(len(train))[::-1]),
        replace(train, camids=np.roll(train.camids, 1)),
    ]
    assert train.fingerprint not in {other.fingerprint for other in others}
    renamed = replace(train, paths=tuple(f"x{path}" for path in train.paths), pids=train.pids + 1)
    assert renamed.fingerprint == train.fingerprint


@pytest.mark.parametrize("stage", ["intra", "inter", "shared"])
def test_an_interrupted_training_does_not_go_on_with_other_images(
    dataset: Dataset, tmp_path: Path, stage: str
) -> None:
    settings = small_settings(intra={"network": "shared"}) if stage == "shared" else PLAIN
    name = "inter" if stage == "inter" else "intra"
    run = create_run(settings, name, [CPU], tmp_path / "run")

    def train(images: Dataset, reporter: SilentReporter) -> None:
        if name == "inter":
            train_inter(settings, images, None, run, CPU, reporter)
        else:
            train_intra(settings, images, run, CPU, reporter)

    with pytest.raises(ConnectionAbortedError):
        train(dataset, Killed(rows=1))
    other = encoded_again(dataset, tmp_path / "data")
    assert other.train.paths != dataset.train.paths
    with pytest.raises(CheckpointError, match=r"checkpoint\.pth is the state of a training on other"):
        train(other, SilentReporter())


def test_a_run_is_refused_before_anything_is_computed(dataset: Dataset, tmp_path: Path) -> None:
    pair = Pair(create_run(PLAIN, "inter", [CPU], tmp_path / "run"))
    with pytest.raises(ConnectionAbortedError):
        train_both(pair, dataset, [CPU], Killed(rows=1))
    other = encoded_again(dataset, tmp_path / "data")
    with pytest.raises(CheckpointError, match=r"run was begun on other training images: .*Start a new run"):
        train_both(pair, other, [CPU], Killed(rows=0))
    fewer = replace(dataset, train=dataset.train.subset(np.arange(len(dataset.train) - 1)))
    with pytest.raises(CheckpointError, match=r"was begun on other training images"):
        train_both(pair, fewer, [CPU], SilentReporter())
    train_both(pair, dataset, [CPU], SilentReporter())
    assert pair.inter.model.is_file()


def test_local_labels_and_models_of_other_images_are_told(dataset: Dataset, tmp_path: Path) -> None:
    settings = small_settings(intra={"epochs": 1}, inter={"epochs": 1})
    intra = create_run(settings, "intra", [CPU], tmp_path / "intra")
    inter = create_run(settings, "inter", [CPU], tmp_path / "inter")
    train_both(Pair(inter, intra), dataset, [CPU], SilentReporter())
    heard = Heard()
    assert find_local_labels(settings, dataset.train, None, intra.local_labels, heard) == intra.local_labels
    assert heard.warnings == []
    cards = [load_model(file)[1] for file in (inter.model, intra.camera(0).model)]
    assert all(is_of_these_images(card, dataset) for card in cards)
    other = encoded_again(dataset, tmp_path / "data")
    find_local_labels(settings, other.train, None, intra.local_labels, heard)
    assert [text for text in heard.warnings if "was made for other training images" in text]
    assert not any(is_of_these_images(card, other) for card in cards)
    assert is_of_these_images(replace(cards[0], dataset="elsewhere"), other)
    assert is_of_these_images(replace(cards[0], images=None), other)


def test_labels_by_path_do_not_go_to_images_that_changed_their_names(
    dataset: Dataset, tmp_path: Path
) -> None:
    """Two files of one camera swap their contents: position by digest stays, and so does the state."""
    train = dataset.train
    first, second = np.flatnonzero(train.camids == 0)[:2]
    paths = list(train.paths)
    paths[first], paths[second] = paths[second], paths[first]
    swapped = replace(train, paths=tuple(paths))
    assert swapped.fingerprint == train.fingerprint
    assert swapped.listing != train.listing
    run, heard = create_run(PLAIN, "intra", [CPU], tmp_path / "run"), Heard()
    claim_images(run, train)
    warn_of_other_images(run.local_labels, train, heard)
    assert heard.warnings == []
    warn_of_other_images(run.local_labels, swapped, heard)
    assert len(heard.warnings) == 1
    with pytest.raises(CheckpointError, match="was begun on other training images"):
        claim_images(run, swapped)
