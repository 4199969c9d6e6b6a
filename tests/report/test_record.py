from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from calr_cli.errors import CheckpointError
from calr_cli.report.record import read_runs
from calr_cli.runs.folder import RunFolder
from tests.report.conftest import Trained


def test_a_finished_run_of_each_stage(trained: Trained) -> None:
    intra, inter = read_runs([trained.intra.path, trained.inter.path])
    assert (intra.status, inter.status) == ("finished after 2 of 2 epochs", "finished after 3 of 3 epochs")
    assert (intra.model, inter.model) == (None, trained.inter.model)
    assert (intra.name, inter.name) == ("intra", "inter")
    assert inter.command.startswith("calr")


def test_an_unfinished_run_has_its_latest_model(unfinished: RunFolder) -> None:
    (run,) = read_runs([unfinished.path])
    assert run.status == "not finished: 2 of 3 epochs so far"
    assert run.model == unfinished.last


def test_an_unfinished_stage_1_has_the_figures_of_its_cameras(trained: Trained, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "intra")
    shutil.copytree(trained.intra.path, run.path)
    run.local_labels.unlink()
    run.metrics.unlink()
    (found,) = read_runs([run.path])
    assert len(found.rows) == 3 * 2
    assert found.status == "not finished: 2 of 2 epochs so far"


def test_runs_of_one_name_go_by_their_paths_and_the_same_run_counts_once(
    trained: Trained, tmp_path: Path
) -> None:
    other = tmp_path / "inter"
    shutil.copytree(trained.inter.path, other)
    names = [run.name for run in read_runs([trained.inter.path, other, tmp_path / "." / "inter"])]
    assert names == [str(trained.inter.path), str(other)]


def test_what_is_no_run_says_what_would_be(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not a run folder.*DATASET/STAGE/NAME$"):
        read_runs([tmp_path])
    both = trained.inter.path.parent
    with pytest.raises(CheckpointError, match=rf"Give one of the runs in it: {both}/inter, {both}/intra$"):
        read_runs([both])


@pytest.mark.parametrize("line", ["{not JSON}", '{"loss": 1}', '["epoch"]', '{"epoch": null}'])
def test_figures_that_calr_did_not_write(unfinished: RunFolder, line: str) -> None:
    unfinished.metrics.write_text(f"{line}\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is not as calr wrote it\. Delete it"):
        read_runs([unfinished.path])
