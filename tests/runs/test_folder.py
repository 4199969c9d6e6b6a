"""Run folders: found again, refused when they are not whole, and read after a crash."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from calr_cli.errors import CheckpointError
from calr_cli.figures import Seconds, to_json
from calr_cli.runs.find import create_run, find_model, newest_local_labels, open_run
from calr_cli.runs.folder import RunFolder
from tests.support.epoch_figures import inter_epoch
from tests.support.small import small_settings

CPU = torch.device("cpu")


def environment_of(run: RunFolder) -> dict[str, Any]:
    """The file as anybody would read it."""
    content: dict[str, Any] = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(path: Path, stage: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_run(path, stage)
    return str(caught.value)


def test_two_runs_in_one_second_have_two_folders() -> None:
    first, second = (create_run(small_settings(), "inter", [CPU], None) for _ in range(2))
    assert first.path != second.path
    assert first.path.parent == second.path.parent == Path("runs/market1501/inter")
    assert first.settings == small_settings()


def test_runs_that_begin_at_the_same_moment_have_folders_of_their_own() -> None:
    barrier = threading.Barrier(6)

    def begin(_: int) -> Path:
        barrier.wait()
        return create_run(small_settings(), "inter", [CPU], None).path

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(begin, range(6)))) == 6


def test_a_folder_that_exists_is_not_overwritten(here: Path) -> None:
    (here / "out").mkdir()
    with pytest.raises(CheckpointError, match=r"^out exists already\. Choose another --output"):
        create_run(small_settings(), "inter", [CPU], Path("out"))
    assert not list((here / "out").iterdir())


def test_what_is_no_run_folder_is_told(here: Path) -> None:
    run = create_run(small_settings(), "inter", [CPU], here / "run")
    assert open_run(run.path, "inter") == run
    assert refusal(run.path, "intra") == f"{run.path} is a run of train-inter, not of train-intra"
    (run.path / "environment.json").write_text("[]")
    assert refusal(run.path, "inter").startswith(f"{run.path}/environment.json is not as calr wrote it")
    (run.path / "config.yaml").unlink()
    assert refusal(run.path, "inter").startswith(f"{run.path} is not a run folder: it has no config.yaml")


def test_a_line_cut_short_by_a_crash_is_left_out(here: Path) -> None:
    run = create_run(small_settings(), "inter", [CPU], here / "run")
    assert run.read_metrics() == []
    run.append_metrics(inter_epoch(0))
    with run.metrics.open("a") as file:
        file.write('{"epoch": 1, "lo')
    assert run.read_metrics() == [to_json(inter_epoch(0))]
    assert run.read_epochs() == [inter_epoch(0)]


def test_the_newest_finished_run_is_found() -> None:
    older, newer, unfinished = (create_run(small_settings(), "inter", [CPU], None) for _ in range(3))
    for when, run in ((100, older), (200, newer)):
        run.model.touch()
        os.utime(run.model, (when, when))
    unfinished.last.touch()
    assert find_model("model.pth", None) == newer.model
    assert find_model("model.pth", "market1501") == newer.model
    assert find_model(str(older.model), None) == older.model
    with pytest.raises(
        CheckpointError, match=r"^no file model\.pth here, nor in a finished run under runs/veri/"
    ):
        find_model("model.pth", "veri")
    with pytest.raises(CheckpointError, match=r"^no file elsewhere/model\.pth\. "):
        find_model("elsewhere/model.pth", None)
    Path("model.pth").touch()
    assert find_model("model.pth", None) == Path("model.pth")


def test_the_newest_local_labels_are_of_the_dataset() -> None:
    assert newest_local_labels("market1501") is None
    runs = [create_run(small_settings(), "intra", [CPU], None) for _ in range(2)]
    for when, run in ((200, runs[0]), (100, runs[1])):
        run.local_labels.touch()
        os.utime(run.local_labels, (when, when))
    assert newest_local_labels("market1501") == runs[0].local_labels
    assert newest_local_labels("veri") is None
    assert newest_local_labels("market1501", with_model=True) is None
    runs[1].model.touch()  # a network for all cameras
    assert newest_local_labels("market1501", with_model=True) == runs[1].local_labels


def test_the_environment_names_every_device_and_no_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "somebody-unlikely")
    found = environment_of(create_run(small_settings(), "inter", [CPU, CPU], None))
    assert found["stage"] == "inter"
    assert [device["device"] for device in found["devices"]] == ["cpu", "cpu"]
    assert all(device["memory_gb"] > 0 for device in found["devices"])
    assert (found["processes"], found["threads"]) == (2, torch.get_num_threads())
    assert found["packages"]["torch"]
    assert found["settings"]["inter.epochs"] == small_settings().inter.epochs
    assert "somebody-unlikely" not in json.dumps(found["devices"])


def strictly(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_a_number_that_is_none_is_null(here: Path) -> None:
    """Other programs than Python's read no bare NaN."""
    run, nan, inf = RunFolder(here), float("nan"), float("inf")
    run.append_metrics(inter_epoch(0, loss=nan, seconds=Seconds(inf, 0.5)))
    found = strictly(run.metrics)
    assert (found["loss"], found["seconds"]) == (None, {"extract": None, "cluster": 0.5, "train": 0.0})
    run.keep_metrics([inter_epoch(0, loss=-inf)])
    assert strictly(run.metrics)["loss"] is None
    run.write_evaluation({"mAP": nan})
    assert strictly(run.evaluation) == {"mAP": None}
    run.write_selection({"0": nan}, 0)
    assert strictly(here / "selection.json") == {"criteria": {"0": None}, "selected": 0}
