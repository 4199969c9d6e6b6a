"""Stage 1 on cameras that are small, alone, or cut into too many clusters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calr_cli.data.local_labels import read_local_labels
from calr_cli.method.intra import train_intra
from calr_cli.runs.find import create_run
from tests.support.small import small_dataset, small_settings
from tests.support.stages import (
    CPU,
    Notebook,
    run_inter,
    run_intra,
)


@pytest.mark.parametrize("count", [1, 3, 9, 10, 22])
def test_cameras_of_few_images(tmp_path: Path, count: int) -> None:
    """VeRi has a camera of 22 images; K_c = N_c // 5 needs ten for two clusters."""
    dataset = small_dataset(tmp_path / "data")
    camids = np.zeros(len(dataset.train), np.int64)
    camids[:count] = 1
    few = replace(dataset, train=replace(dataset.train, camids=camids))
    run = run_intra(small_settings(), few, tmp_path / "run")
    labels = read_local_labels(run.local_labels, few.train)
    assert len(np.unique(labels[:count])) == max(1, count // 5)
    assert not set(labels[:count]) & set(labels[count:])


def test_images_of_one_camera_train_in_both_stages_and_what_is_lost_is_said(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    one = replace(dataset, train=replace(dataset.train, camids=np.zeros(len(dataset.train), np.int64)))
    run, notebook = create_run(small_settings(), "intra", [CPU], tmp_path / "run"), Notebook()
    train_intra(small_settings(), one, run, CPU, notebook)
    assert [text for text in notebook.warnings if text.startswith("all training images are of one camera: ")]
    finished = run_inter(small_settings(), one, run.local_labels, tmp_path / "inter")
    assert len(finished.read_metrics()) == small_settings().inter.epochs


def test_too_many_clusters_are_cut_and_warned_about(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    settings = small_settings(intra={"clustering": {"num_clusters": 600, "k1": 5, "k2": 2}, "epochs": 1})
    run = create_run(settings, "intra", [CPU], tmp_path / "run")
    notebook = Notebook()
    train_intra(settings, dataset, run, CPU, notebook)
    assert [row["clusters"] for row in run.read_metrics()] == [15, 15, 15]
    assert notebook.warnings[0].startswith("15 clusters for 16 images leave most of them alone")
