"""A run that is killed at any moment, and resumed, gives what an uninterrupted one gives, to the bit."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from calr_cli.runs.find import create_run
from calr_cli.runs.folder import RunFolder
from calr_cli.training.checkpoint import load_model
from tests.support.killed import CPU, Plan, train
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


@dataclass
class Uninterrupted:
    """Runs without a kill, each made when it is first asked for, and the CPU seconds of each."""

    folder: Path
    home: Path
    runs: dict[tuple[str, int], tuple[RunFolder, float]] = field(default_factory=dict)

    def __call__(self, stage: str, processes: int) -> tuple[RunFolder, float]:
        if (stage, processes) not in self.runs:
            run = self.begin(stage, self.folder / str(processes))
            assert train(Plan(stage, processes, 600), run.path, self.home) == 0
            self.runs[stage, processes] = run, float((run.path / "cpu_seconds").read_text())
        return self.runs[stage, processes]

    def begin(self, stage: str, folder: Path) -> RunFolder:
        """A new run; stage 2 has the local labels of the stage 1 that one process was not killed in."""
        run = create_run(SETTINGS, stage, [CPU], folder / stage)
        if stage == "inter":
            shutil.copyfile(self("intra", 1)[0].local_labels, run.local_labels)
        return run


@pytest.fixture(scope="module")
def uninterrupted(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    return Uninterrupted(tmp_path_factory.mktemp("whole"), home)


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
@pytest.mark.parametrize(
    ("stage", "processes", "how", "save_seconds"),
    [
        ("intra", 1, "SIGKILL", 600),
        ("intra", 1, "SIGKILL", 0),
        ("intra", 1, "SIGINT", 600),
        ("intra", 2, "SIGKILL", 600),
        ("inter", 1, "SIGKILL", 600),
        ("inter", 1, "SIGKILL", 0),
        ("inter", 1, "SIGINT", 600),
        ("inter", 2, "SIGKILL", 0),
        ("inter", 2, "SIGINT", 600),
    ],
    ids=lambda value: str(value),
)
def test_killed_at_random_times(
    home: Path,
    uninterrupted: Uninterrupted,
    tmp_path: Path,
    stage: str,
    processes: int,
    save_seconds: float,
    how: str,
) -> None:
    expected, seconds = uninterrupted(stage, processes)
    run = uninterrupted.begin(stage, tmp_path)
    rng = random.Random(f"{stage} {save_seconds} {how}")
    kills = 3 if processes == 1 else 1  # several processes take seconds to start
    plan = Plan(stage, processes, save_seconds, how)
    plans = [replace(plan, after=rng.uniform(0.1, 0.6) * seconds) for _ in range(kills)]
    codes = [train(each, run.path, home) for each in plans]
    assert codes[0] != 0
    if not (run.path / FINISHED[stage]).exists():
        assert train(plan, run.path, home) == 0
    assert_same(stage, run, expected)
