"""A run that is killed at any moment, and resumed, gives what an uninterrupted one gives, to the bit."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from calr_cli.pipelines.run_dir import RunFolder, create_run
from calr_cli.training.checkpoint import load_model
from tests.support.killed import CPU, train
from tests.support.small import small_dataset, small_settings

SETTINGS = small_settings(inter={"iters": 4}, evaluation={"monitor_every": 1})
MODELS = {
    "intra": [f"cam{c}/model.pth" for c in range(3)],
    "inter": ["model.pth", "last.pth", "selected.pth"],
}
FINISHED = {"intra": "local_labels.csv", "inter": "model.pth"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with a prepared dataset; its images are decoded once."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALR_HOME", str(folder / "state"))
        small_dataset(folder / "data")
    return folder / "state"


@pytest.fixture(scope="module")
def uninterrupted(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[RunFolder, float]]:
    """Both stages without a kill, and the CPU seconds of each."""
    folder = tmp_path_factory.mktemp("whole")
    runs = {}
    for stage in ("intra", "inter"):
        run = new_run(stage, folder, runs["intra"][0].local_labels if runs else None)
        assert train(stage, run.path, home, 600) == 0
        runs[stage] = run, float((run.path / "cpu_seconds").read_text())
    return runs


def new_run(stage: str, folder: Path, local_labels: Path | None) -> RunFolder:
    run = create_run(SETTINGS, stage, [CPU], folder / stage)
    if stage == "inter":
        assert local_labels is not None
        shutil.copyfile(local_labels, run.local_labels)
    return run


def figures(run: RunFolder) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.read_metrics()]


def assert_same(stage: str, run: RunFolder, other: RunFolder) -> None:
    assert (run.path / "local_labels.csv").read_bytes() == (other.path / "local_labels.csv").read_bytes()
    assert figures(run) == figures(other)
    assert figures(run)
    for name in MODELS[stage]:
        (a, card), (b, other_card) = load_model(run.path / name), load_model(other.path / name)
        assert card == other_card
        for key, value in a.state_dict().items():
            assert torch.equal(value, b.state_dict()[key]), (name, key)


@pytest.mark.distributed
@pytest.mark.parametrize("stage", ["intra", "inter"])
@pytest.mark.parametrize(
    ("how", "save_seconds"),
    [("SIGKILL", 600), ("SIGKILL", 0), ("SIGINT", 600)],
    ids=["killed", "killed, saved after every step", "interrupted"],
)
def test_killed_at_random_times(
    home: Path,
    uninterrupted: dict[str, tuple[RunFolder, float]],
    tmp_path: Path,
    stage: str,
    save_seconds: float,
    how: str,
) -> None:
    expected, seconds = uninterrupted[stage]
    run = new_run(stage, tmp_path, uninterrupted["intra"][0].local_labels)
    rng = random.Random(f"{stage} {save_seconds} {how}")
    codes = [
        train(stage, run.path, home, save_seconds, how, rng.uniform(0.1, 0.6) * seconds) for _ in range(3)
    ]
    assert codes[0] != 0
    if not (run.path / FINISHED[stage]).exists():
        assert train(stage, run.path, home, save_seconds) == 0
    assert_same(stage, run, expected)
