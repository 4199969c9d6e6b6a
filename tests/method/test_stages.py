"""Both stages on a small dataset: what they write, what they may look at, and how they go on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calr_cli.data.local_labels import read_local_labels
from calr_cli.events import SilentReporter
from calr_cli.method.inter import train_inter
from calr_cli.method.intra import train_intra
from calr_cli.prepare.prepared import load_dataset
from calr_cli.prepare.published import prepare_dataset
from calr_cli.runs.find import create_run, open_run
from calr_cli.training.checkpoint import load_model
from calr_cli.types import ImageSet
from tests.support.small import small_dataset, small_settings
from tests.support.stages import (
    CPU,
    Notebook,
    assert_same_model,
    figures,
    files,
    run_inter,
    run_intra,
)


def test_exactly_these_files_are_written(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    intra = run_intra(small_settings(), dataset, tmp_path / "intra")
    cameras = {
        f"cam{c}/{name}" for c in range(3) for name in ("local_labels.csv", "metrics.jsonl", "model.pth")
    }
    assert files(intra.path) == {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "local_labels.csv",
        *cameras,
    }
    assert len(intra.read_metrics()) == 3 * 2
    inter = run_inter(small_settings(), dataset, intra.local_labels, tmp_path / "inter")
    assert files(inter.path) == {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "checkpoint.pth",
        "last.pth",
        "model.pth",
        "selected.pth",
        "selection.json",
    }
    assert [row["epoch"] for row in inter.read_metrics()] == [0, 1, 2]
    selection = json.loads((inter.path / "selection.json").read_text())
    assert selection["criteria"].keys() == {"1", "2", "3"}
    assert selection["criteria"][str(selection["selected"])] == max(selection["criteria"].values())
    assert load_model(inter.model)[1].epoch == selection["selected"]
    # The camera head works in the first epochs only; there are two left without it after three.
    assert inter.read_metrics()[0]["camera_loss"] is not None


def test_identities_change_no_label_and_no_weight(tmp_path: Path) -> None:
    """Identities are for the figures only: shuffled ones give the same training, other figures."""
    dataset = small_dataset(tmp_path / "data")
    train = dataset.train
    shuffled = replace(dataset, train=replace(train, pids=np.random.default_rng(0).permutation(train.pids)))
    unknown = replace(dataset, train=replace(train, pids=np.full(len(train), -1)))
    runs = []
    for name, data in (("true", dataset), ("shuffled", shuffled), ("unknown", unknown)):
        intra = run_intra(small_settings(), data, tmp_path / name / "intra")
        inter = run_inter(small_settings(), data, intra.local_labels, tmp_path / name / "inter")
        runs.append((intra, inter))
    (intra, inter), *others = runs
    for other_intra, other_inter in others:
        assert intra.local_labels.read_bytes() == other_intra.local_labels.read_bytes()
        assert_same_model(inter.model, other_inter.model)
        assert figures(inter, "quality") == figures(other_inter, "quality")
    assert inter.read_metrics()[0]["quality"] != others[0][1].read_metrics()[0]["quality"]
    assert "quality" not in others[1][1].read_metrics()[0]


def test_names_and_order_of_files_change_nothing(tmp_path: Path) -> None:
    """Names start with the identity, and clustering depends on record order: names must not decide it."""
    dataset = small_dataset(tmp_path / "data")
    source = dataset.train.root
    renamed = tmp_path / "renamed" / "market1501" / source.name
    shutil.copytree(source, renamed)
    folder = renamed / "bounding_box_train"
    rng = np.random.default_rng(1)
    for number, path in zip(rng.permutation(1000), sorted(folder.iterdir()), strict=False):
        camera = path.name.split("_")[1]
        path.rename(folder / f"{number + 1:04d}_{camera}_{number:06d}_00.jpg")
    first = run_intra(small_settings(), dataset, tmp_path / "a" / "intra")
    first_model = run_inter(small_settings(), dataset, first.local_labels, tmp_path / "a" / "inter").model
    prepare_dataset("market1501", tmp_path / "renamed", SilentReporter())
    other = load_dataset("market1501")
    assert other.train.paths != dataset.train.paths
    second = run_intra(small_settings(), other, tmp_path / "b" / "intra")
    assert np.array_equal(
        read_local_labels(first.local_labels, dataset.train),
        read_local_labels(second.local_labels, other.train),
    )
    assert_same_model(
        first_model, run_inter(small_settings(), other, second.local_labels, tmp_path / "b" / "inter").model
    )


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    dataset, settings = small_dataset(tmp_path / "data"), small_settings()
    whole = run_intra(settings, dataset, tmp_path / "whole" / "intra")
    for epochs in (1, 3):  # within the first camera, and within the second
        path = tmp_path / f"cut{epochs}"
        run = create_run(settings, "intra", [CPU], path)
        with pytest.raises(KeyboardInterrupt):
            train_intra(settings, dataset, run, CPU, Notebook(epochs))
        train_intra(settings, dataset, open_run(path, "intra"), CPU, SilentReporter())
        assert whole.local_labels.read_bytes() == run.local_labels.read_bytes()
        assert figures(whole) == figures(run)

    inter = run_inter(settings, dataset, whole.local_labels, tmp_path / "whole" / "inter")
    local = read_local_labels(whole.local_labels, dataset.train)
    run = create_run(settings, "inter", [CPU], tmp_path / "cut" / "inter")
    with pytest.raises(KeyboardInterrupt):
        train_inter(settings, dataset, local, run, CPU, Notebook(2))
    assert not run.model.exists()
    train_inter(settings, dataset, local, open_run(run.path, "inter"), CPU, SilentReporter())
    assert_same_model(inter.model, run.model)
    assert figures(inter) == figures(run)


def test_image_set_reaches_training_in_record_order(tmp_path: Path) -> None:
    train: ImageSet = small_dataset(tmp_path / "data").train
    assert list(train.digests) == sorted(train.digests)
