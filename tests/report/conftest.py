"""Both stages on a small dataset, once for all tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from calr_cli.config.schema import Settings
from calr_cli.data.local_labels import read_local_labels, write_local_labels
from calr_cli.events import SilentReporter
from calr_cli.method.inter import train_inter
from calr_cli.method.intra import train_intra
from calr_cli.runs.find import create_run
from calr_cli.runs.folder import RunFolder
from tests.support.narrow import use_narrow
from tests.support.small import small_dataset, small_settings

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Trained:
    """A state folder with a prepared dataset, and the runs of both stages."""

    home: Path
    intra: RunFolder
    inter: RunFolder


@pytest.fixture(scope="package")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALR_HOME", str(folder / "home"))
        use_narrow(patch)
        dataset = small_dataset(folder / "data")
        settings: Settings = small_settings(evaluation={"monitor_every": 1})
        intra = create_run(settings, "intra", [CPU], folder / "intra")
        train_intra(settings, dataset, intra, CPU, SilentReporter())
        inter = create_run(settings, "inter", [CPU], folder / "inter")
        local_labels = read_local_labels(intra.local_labels, dataset.train)
        write_local_labels(inter.local_labels, dataset.train, local_labels)
        train_inter(settings, dataset, local_labels, inter, CPU, SilentReporter())
    yield Trained(folder / "home", intra, inter)
    shutil.rmtree(folder)  # models are large


@pytest.fixture
def trained(trained_once: Trained, narrow: None, monkeypatch: pytest.MonkeyPatch) -> Trained:
    monkeypatch.setenv("CALR_HOME", str(trained_once.home))
    return trained_once


@pytest.fixture
def unfinished(trained: Trained, tmp_path: Path) -> RunFolder:
    """The run as it was after two of three epochs, which a last line cut short ends."""
    run = RunFolder(tmp_path / "unfinished")
    shutil.copytree(trained.inter.path, run.path)
    run.model.unlink()
    lines = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text("".join(lines[:2]) + lines[2][:20])
    return run
