"""A small dataset and small settings that train in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calr_cli.config.schema import Settings
from calr_cli.events import SilentReporter
from calr_cli.prepare.prepared import load_dataset
from calr_cli.prepare.published import prepare_dataset
from calr_cli.types import Dataset
from tests.support.made_up import make_layout

SETTINGS: dict[str, Any] = {
    "precision": "fp32",
    "evaluation": {"monitor_every": 0},
    "data": {"dataset": "market1501", "height": 32, "width": 32, "workers": 1},
    "model": {"arch": "resnet18", "pretrained": "none"},
    "intra": {"epochs": 2, "iters": 2, "batch_size": 8, "num_instances": 2, "clustering": {"k1": 5, "k2": 2}},
    "inter": {
        "epochs": 3,
        "iters": 2,
        "batch_size": 8,
        "num_instances": 2,
        "clustering": {"k": 4, "min_similarity": 0.3, "min_cluster_size": 2},
        "weights": {"start_epoch": 1},
    },
}


def small_settings(**changes: Any) -> Settings:
    """Settings of a training that takes a second; ``changes`` go into the sections, one level deep."""
    merged = dict(SETTINGS)
    for name, value in changes.items():
        merged[name] = {**SETTINGS.get(name, {}), **value} if isinstance(value, dict) else value
    return Settings(**merged)


def small_dataset(root: Path) -> Dataset:
    """48 training images of 8 identities by 3 cameras, and a test split, in the layout of Market-1501."""
    make_layout("market1501", root)
    prepare_dataset("market1501", root, SilentReporter())
    return load_dataset("market1501")
