"""Runs that were given a folder are found by the next command."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from calr_cli.files import calr_home
from calr_cli.runs.find import create_run, find_model, newest_local_labels
from calr_cli.runs.places import remember_run, remembered_runs
from tests.support.small import small_settings

CPU = torch.device("cpu")


def test_a_run_with_a_folder_of_its_own_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    intra = create_run(small_settings(), "intra", [CPU], Path("mine/intra"))
    assert newest_local_labels("market1501") is None  # it is not finished
    intra.local_labels.touch()
    monkeypatch.chdir(tmp_path)
    assert newest_local_labels("market1501") == tmp_path / "here/mine/intra/local_labels.csv"
    assert newest_local_labels("veri") is None
    inter = create_run(small_settings(), "inter", [CPU], Path("other"))
    inter.model.touch()
    assert find_model("model.pth", "market1501") == tmp_path / "other/model.pth"


def test_what_is_gone_damaged_or_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    remember_run(tmp_path / "gone", "shop", "intra")
    (tmp_path / "there").mkdir()
    remember_run(tmp_path / "there", "shop", "intra")
    with (calr_home() / "runs.jsonl").open("a") as file:
        file.write('not JSON\n[]\n{"run": 3, "stage": "intra", "dataset": "shop"}\n{}\n')
    assert remembered_runs("shop", "intra") == [tmp_path / "there"]
    assert remembered_runs(None, "intra") == [tmp_path / "there"]
    assert remembered_runs("shop", "inter") == []
    (calr_home() / "runs.jsonl").unlink()
    (calr_home() / "runs.jsonl").mkdir()
    remember_run(tmp_path / "there", "shop", "intra")
    assert remembered_runs("shop", "intra") == []
