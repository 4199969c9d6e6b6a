"""The synthetic dataset asks for the method and rewards it: how hard it is, written down."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from calr_cli.config.loading import resolve_settings
from calr_cli.data.local_labels import read_local_labels
from calr_cli.events import SilentReporter
from calr_cli.method.build import build_encoder
from calr_cli.method.evaluate import evaluate
from calr_cli.method.inter import train_inter
from calr_cli.method.intra import train_intra
from calr_cli.prepare.datasets.synthetic import make_synthetic
from calr_cli.prepare.prepared import load_dataset
from calr_cli.prepare.published import prepare_dataset
from calr_cli.runs.find import create_run
from calr_cli.training.checkpoint import load_model

CPU = torch.device("cpu")


@pytest.mark.e2e
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_calr_learns_and_refinement_discards_rightly(seed: int, tmp_path: Path) -> None:
    make_synthetic(tmp_path / "data", seed=seed)
    prepare_dataset("market1501", tmp_path / "data", SilentReporter())  # it is laid out like Market-1501
    dataset = load_dataset("market1501")
    quick = ["precision=fp32", "evaluation.monitor_every=0"]
    settings = resolve_settings("synthetic", None, [f"seed={seed + 1}", *quick]).settings
    quiet = SilentReporter()
    untrained = evaluate(settings, build_encoder(settings, "inter", CPU), dataset, False, quiet)["mAP"]
    assert untrained <= 30

    intra = create_run(settings, "intra", [CPU], tmp_path / "intra")
    train_intra(settings, dataset, intra, CPU, quiet)
    inter = create_run(settings, "inter", [CPU], tmp_path / "inter")
    local_labels = read_local_labels(intra.local_labels, dataset.train)
    train_inter(settings, dataset, local_labels, inter, CPU, quiet)
    trained = evaluate(settings, load_model(inter.model)[0], dataset, False, quiet)["mAP"]
    assert untrained + 10 <= trained < 95  # the seeds gain 13 to 27; without learning nothing

    late = inter.read_metrics()[2:]
    assert all(row["discarded"] > 0 for row in late)
    assert all(row["quality"]["discarded_right"] > 0.5 for row in late)
