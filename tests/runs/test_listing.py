"""What a run folder tells about itself, however its run went."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from calr_cli.config.loading import dump_settings, flat_settings
from calr_cli.errors import CheckpointError
from calr_cli.figures import TestFigures
from calr_cli.runs.folder import RunFolder
from calr_cli.runs.listing import find_runs, summarise
from tests.support.epoch_figures import inter_epoch, intra_epoch
from tests.support.small import small_settings

SETTINGS = small_settings()  # 2 epochs in stage 1, 3 in stage 2


def make_run(path: Path, stage: str, command: str = "", **more: Any) -> RunFolder:
    """A run that has begun, as `create_run` leaves it, without what needs torch."""
    path.mkdir(parents=True)
    run = RunFolder(path)
    run.config.write_text(dump_settings(SETTINGS))
    words = ["calr", *(command or f"train-{stage}").split()]
    environment = {"stage": stage, "started": "2026-03-01T12:30:00+02:00", "command": words}
    run.write_environment({**environment, "settings": flat_settings(SETTINGS), **more})
    return run


def test_stage_2_from_its_first_epoch_to_its_evaluation(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a run", "inter")
    found = summarise(run.path)
    assert (found.dataset, found.stage, found.epochs_done, found.epochs) == ("market1501", "inter", 0, 3)
    assert (found.mAP, found.camera, found.finished) == (None, None, False)
    assert found.resume == f"calr train-inter --resume '{run.path}'"
    assert found.begun.isoformat() == "2026-03-01T12:30:00+02:00"

    run.append_metrics(inter_epoch(0))
    run.append_metrics(inter_epoch(1, monitoring=TestFigures(12.5, 30.0)))
    run.append_metrics(inter_epoch(2))
    with run.metrics.open("a") as file:
        file.write('{"epoch": 3')  # cut short by a crash
    found = summarise(run.path)
    assert (found.epochs_done, found.mAP, found.mAP_epoch, found.finished) == (3, 12.5, 2, False)

    run.model.touch()
    run.write_evaluation({"dataset": "market1501", "mAP": 61.0})
    found = summarise(run.path)
    assert (found.mAP, found.mAP_epoch, found.finished, found.resume) == (61.0, None, True, "")


def test_stage_1_is_as_far_as_the_camera_that_has_least(tmp_path: Path) -> None:
    run = make_run(tmp_path / "intra", "intra")
    for camid, epochs in ((0, 2), (1, 1)):
        camera = RunFolder(run.path / f"cam{camid}")
        camera.path.mkdir()
        for epoch in range(epochs):
            camera.append_metrics(intra_epoch(camid, epoch))
    found = summarise(run.path)
    assert (found.epochs_done, found.epochs, found.camera, found.finished) == (1, 2, 1, False)
    run.keep_metrics([intra_epoch(camid, epoch) for camid in (0, 1) for epoch in (0, 1)])
    run.local_labels.touch()
    found = summarise(run.path)
    assert (found.epochs_done, found.camera, found.finished) == (2, None, True)


def test_the_last_write_is_that_of_the_training(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "intra")
    (run.path / "cam0").mkdir()
    files = [run.path / "environment.json", run.path / "cam0/checkpoint.pth", run.path / "report.html"]
    for time, file in enumerate(files, start=1):
        file.touch()
        os.utime(file, (1000 * time, 1000 * time))
    assert summarise(run.path).written.timestamp() == 2000


@pytest.mark.parametrize(
    ("path", "command", "resume"),
    [
        ("mine/inter", "train -d veri --output mine", "train --resume {}/mine"),
        ("mine/seed2/intra", "train --seeds 3 -d veri --output mine", "train --resume {}/mine"),
        ("mine/seed2/inter", "train --seeds=3 --output mine", "train --resume {}/mine"),
        ("seed2/inter", "train -d veri --output seed2", "train --resume {}/seed2"),
        ("runs/veri/inter/20260301-123000", "train -d veri", "train-inter --resume {}/{path}"),
        ("out/calr/inter", "demo --output out", "train-inter --resume {}/{path}"),
    ],
)
def test_a_run_that_is_one_of_several_goes_on_with_them(
    tmp_path: Path, path: str, command: str, resume: str
) -> None:
    run = make_run(
        tmp_path / path, Path(path).name if Path(path).name in ("intra", "inter") else "inter", command
    )
    assert summarise(run.path).resume == "calr " + resume.format(tmp_path, path=path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("environment.json", "{", "environment.json is not as calr wrote it"),
        ("environment.json", '{"stage": "inter"}', "cannot be read: KeyError 'started'"),
        ("metrics.jsonl", "[]\n", "metrics.jsonl is not as calr wrote it"),
        ("metrics.jsonl", '{"epoch": "2"}\n', "metrics.jsonl is not as calr wrote it"),
        ("metrics.jsonl", '{"epoch": 0, "monitoring": null}\n', "metrics.jsonl is not as calr wrote it"),
        ("evaluation.json", "{}", "cannot be read: KeyError 'mAP'"),
    ],
)
def test_what_calr_did_not_write(tmp_path: Path, name: str, content: str, message: str) -> None:
    run = make_run(tmp_path / "run", "inter")
    (run.path / name).write_text(content)
    with pytest.raises(CheckpointError, match=message) as raised:
        summarise(run.path)
    assert len(raised.value.problems) == 1


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "inter")
    run.metrics.mkdir()
    with pytest.raises(CheckpointError, match=r"run cannot be read: IsADirectoryError "):
        summarise(run.path)


def test_runs_are_found_at_any_depth_once(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / path, "inter").path for path in ("a", "b/c/d", "b/e")]
    make_run(runs[0] / "copy", "inter")  # within a run
    (tmp_path / "b/link").symlink_to(tmp_path)  # a circle
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "far").symlink_to(runs[1])
    found = list(find_runs([tmp_path, tmp_path / "b"]))  # by the link or not, as the folders happen to come
    assert sorted(path.resolve() for path in found) == [path.resolve() for path in runs]
    assert list(find_runs([other])) == [other / "far"]
    assert list(find_runs([runs[0]])) == [runs[0]]
    assert list(find_runs([tmp_path / "nothing"])) == []


def test_the_settings_are_those_of_the_run_now(tmp_path: Path) -> None:
    """A run that was prolonged asks for its new number of epochs; an old one has settings in YAML only."""
    longer = {**flat_settings(SETTINGS), "inter.epochs": 9}
    assert summarise(make_run(tmp_path / "run", "inter", settings=longer).path).epochs == 9
    assert summarise(make_run(tmp_path / "old", "inter", settings=None).path).epochs == 3
