"""What holds in every process of a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from calr_cli.errors import MemoryLimitError
from calr_cli.events import SilentReporter
from calr_cli.method import processes
from calr_cli.models.encoder import Encoder
from calr_cli.runs.folder import RunFolder
from calr_cli.training.checkpoint import ModelCard, save_model
from calr_cli.use import evaluating
from tests.support.small import small_dataset, small_settings

CPU = torch.device("cpu")


def test_a_model_file_and_an_untrained_network_are_measured(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    settings = small_settings()
    save_model(
        tmp_path / "model.pth",
        Encoder("resnet18", "gem"),
        ModelCard("x", "inter", 1, "resnet18", "gem", 32, 32),
    )
    for model in (tmp_path / "model.pth", None):
        result = evaluating.run_evaluation(
            settings, model, dataset, False, [CPU], tmp_path / "logs", SilentReporter()
        )
        assert 0 < result["mAP"] <= 100


@pytest.mark.parametrize("deterministic", [True, False])
def test_deterministic_holds_in_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deterministic: bool
) -> None:
    made: list[bool] = []
    monkeypatch.setattr(processes, "make_deterministic", lambda: made.append(True))
    monkeypatch.setattr(processes, "train_intra", lambda *arguments: {"made": list(made)})
    monkeypatch.setattr(processes, "train_inter", lambda *arguments: {"made": list(made)})
    settings = small_settings().model_copy(update={"deterministic": deterministic})
    run, quiet = RunFolder(tmp_path), SilentReporter()
    dataset: Any = None
    assert bool(processes.run_intra(settings, dataset, run, [CPU], quiet)["made"]) is deterministic
    assert len(processes.run_inter(settings, dataset, None, run, [CPU], quiet)["made"]) == 2 * deterministic


def test_a_full_gpu_is_named_with_the_setting_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(evaluating, "extract_test_set", full)
    dataset: Any = None
    with pytest.raises(MemoryLimitError) as caught:
        evaluating.run_evaluation(
            small_settings(), None, dataset, False, [CPU], tmp_path / "logs", SilentReporter()
        )
    assert str(caught.value) == (
        "the memory of cpu is full. Lower evaluation.batch_size (256 now), or memory_limit_gb"
    )
