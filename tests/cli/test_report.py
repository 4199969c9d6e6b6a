from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Calr
from tests.report.conftest import Trained, trained, trained_once, unfinished  # noqa: F401 - fixtures


def test_the_page_lies_in_the_run_folder_or_where_it_is_wanted(
    calr: Calr,
    trained: Trained,  # noqa: F811
    folder: Path,
) -> None:
    shutil.copytree(trained.inter.path, folder / "run")
    answer = calr("report", "run", "--device", "cpu")
    assert answer.exit_code == 0
    assert answer.stdout.split() == ["report", "run/report.html"]
    assert (folder / "run" / "report.html").read_text().startswith("<!doctype html>")
    both = calr("report", "run", trained.intra.path, "--device", "cpu", "--json", "--quiet")
    assert both.json["report"] == "report.html"
    assert both.json["runs"][0]["mAP"] > 0
    assert both.json["runs"][1]["missing"].keys() == {"ranked", "maps", "camera_map", "pairs"}
    assert calr("report", "run", "--output", "new/page.html", "--quiet").exit_code == 0
    assert (folder / "new" / "page.html").is_file()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nowhere"], "nowhere is not a run folder: it has no config.yaml. Give runs/DATASET/STAGE/NAME"),
        (["run", "--output", "run"], "--output run is a folder. Give the name of a file"),
        (["run", "--device", "tpu"], "--device 'tpu' is not known. Choose cpu or cuda"),
    ],
)
def test_bad_input_is_one_line(
    calr: Calr,
    trained: Trained,  # noqa: F811
    folder: Path,
    words: list[str],
    line: str,
) -> None:
    shutil.copytree(trained.inter.path, folder / "run", ignore=shutil.ignore_patterns("*.pth"))
    answer = calr("report", *words)
    assert (answer.exit_code, answer.stdout, answer.stderr) == (1, "", f"error: {line}\n")
    assert not (folder / "run" / "report.html").exists()


def test_a_run_is_needed(calr: Calr) -> None:
    assert calr("report").exit_code == 2
