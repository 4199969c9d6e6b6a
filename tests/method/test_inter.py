"""Stage 2: seeds, clusters that cannot be trained on, losses that are not numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from calr_cli.errors import TrainingError
from calr_cli.method.inter import train_inter
from calr_cli.runs.find import create_run
from tests.support.small import small_dataset, small_settings
from tests.support.stages import (
    CPU,
    Notebook,
    assert_same_model,
    run_inter,
    weights,
)


def test_seeds_differ_and_repeat(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    plain = small_settings(inter={"refinement": {"enabled": False}})
    first = run_inter(plain, dataset, None, tmp_path / "1")
    assert_same_model(first.model, run_inter(plain, dataset, None, tmp_path / "2").model)
    other = run_inter(plain.model_copy(update={"seed": 2}), dataset, None, tmp_path / "3")
    assert not torch.equal(weights(first.model)["neck.weight"], weights(other.model)["neck.weight"])


@pytest.mark.parametrize(
    ("clustering", "message"),
    [
        (
            {"min_similarity": 1.0, "min_cluster_size": 40},
            "all 48 images are outliers: there is no cluster to train on. Lower inter.clustering.",
        ),
        (
            {"k": 48, "min_similarity": 0.0, "min_cluster_size": 2},
            "one cluster holds all 48 clustered images: there is nothing to tell apart. Raise "
            "inter.clustering.min_similarity",
        ),
    ],
)
def test_no_cluster_and_one_giant_cluster_are_told(
    tmp_path: Path, clustering: dict[str, Any], message: str
) -> None:
    settings = small_settings(inter={"clustering": clustering, "refinement": {"enabled": False}})
    with pytest.raises(TrainingError) as raised:
        run_inter(settings, small_dataset(tmp_path / "data"), None, tmp_path / "run")
    assert str(raised.value).startswith(message)


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_its_last_epoch(tmp_path: Path) -> None:
    settings = small_settings(
        inter={"optimiser": {"lr": 1e30}, "refinement": {"enabled": False}, "iters": 12}
    )
    with pytest.raises(
        TrainingError, match=r"epoch 1/3: the loss is not a number at iteration \d+\. What was saved last"
    ):
        run_inter(settings, small_dataset(tmp_path / "data"), None, tmp_path / "run")
    assert not (tmp_path / "run" / "model.pth").exists()


def test_too_few_clusters_for_a_batch_shrink_it(tmp_path: Path) -> None:
    settings = small_settings(inter={"batch_size": 64, "epochs": 1, "refinement": {"enabled": False}})
    run = create_run(settings, "inter", [CPU], tmp_path / "run")
    notebook = Notebook()
    train_inter(settings, small_dataset(tmp_path / "data"), None, run, CPU, notebook)
    assert any(
        "fewer than a batch of 64: the batch shrinks for this epoch" in text for text in notebook.warnings
    )
    assert run.read_metrics()[0]["batch"] < 64
