"""Every preset trains: both stages and evaluation on made-up data of its layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from calr_cli.config.loading import preset_names, resolve_settings
from calr_cli.data.local_labels import read_local_labels
from calr_cli.events import SilentReporter
from calr_cli.method.evaluate import evaluate
from calr_cli.method.inter import train_inter
from calr_cli.method.intra import train_intra
from calr_cli.prepare.prepared import load_dataset
from calr_cli.prepare.published import prepare_dataset
from calr_cli.runs.find import create_run
from calr_cli.training.checkpoint import load_model
from tests.support.made_up import make_layout

CPU = torch.device("cpu")
SMALL = [
    "model.arch=resnet18",
    "model.pretrained=none",
    "intra.epochs=2",
    "intra.iters=2",
    "intra.batch_size=8",
    "intra.num_instances=2",
    "inter.epochs=2",
    "inter.iters=2",
    "inter.batch_size=8",
    "inter.num_instances=2",
    # Made-up colours are one cloud to a network that has seen nothing: links to few neighbours part them.
    "inter.clustering.k=4",
    "inter.clustering.min_similarity=0.3",
    "inter.clustering.min_cluster_size=2",
]


@pytest.mark.e2e
@pytest.mark.parametrize("name", preset_names())
def test_preset_trains_and_evaluates(name: str, tmp_path: Path) -> None:
    if name != "synthetic":
        make_layout(name, tmp_path / "data")
        prepare_dataset(name, tmp_path / "data", SilentReporter())
    dataset = load_dataset(name)
    settings = resolve_settings(name, None, SMALL).settings
    intra = create_run(settings, "intra", [CPU], tmp_path / "intra")
    train_intra(settings, dataset, intra, CPU, SilentReporter())
    local_labels = read_local_labels(intra.local_labels, dataset.train)
    inter = create_run(settings, "inter", [CPU], tmp_path / "inter")
    train_inter(settings, dataset, local_labels, inter, CPU, SilentReporter())
    encoder, card = load_model(inter.model)
    assert (card.dataset, card.height, card.width) == (name, settings.data.height, settings.data.width)
    metrics = evaluate(settings, encoder, dataset, False, SilentReporter())
    assert 0 < metrics["mAP"] <= 100
    assert metrics["queries"] > 0
