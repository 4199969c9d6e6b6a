from __future__ import annotations

import os
import pty
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from calr_cli.cli.runs import ago, show_runs
from calr_cli.figures import TestFigures
from calr_cli.runs.folder import RunFolder
from calr_cli.runs.listing import summarise
from tests.cli.conftest import Calr
from tests.runs.test_listing import make_run
from tests.support.epoch_figures import inter_epoch, intra_epoch


@pytest.fixture
def runs(folder: Path) -> list[RunFolder]:
    """A finished stage 1, the stage 2 after it that is not finished, and one elsewhere."""
    intra = make_run(folder / "runs/market1501/intra/a", "intra")
    intra.keep_metrics([intra_epoch(0, epoch) for epoch in (0, 1)])
    intra.local_labels.touch()
    inter = make_run(folder / "runs/market1501/inter/b", "inter")
    inter.append_metrics(inter_epoch(0, monitoring=TestFigures(41.26, 60.0)))
    other = make_run(folder / "elsewhere/c", "inter")
    other.write_evaluation({"mAP": 61.0})
    other.model.touch()
    for age, run in enumerate((other, inter, intra)):
        for file in run.path.iterdir():
            os.utime(file, (1_000_000_000 + age, 1_000_000_000 + age))
    return [intra, inter, other]


def test_the_list_ends_with_the_run_that_wrote_last(calr: Calr, runs: list[RunFolder]) -> None:
    answer = calr("runs")
    head, *rows = (line.rsplit(maxsplit=1) for line in answer.stdout.splitlines())
    assert head[0].split() == ["dataset", "stage", "epochs", "mAP", "begun", "last", "written", "state"]
    assert [path for _, path in rows] == ["runs/market1501/inter/b", "runs/market1501/intra/a"]
    words = [text.split() for text, _ in rows]
    assert words[0][:5] == ["market1501", "inter", "1/3", "41.3", "@1"]
    assert words[0][-2:] == ["not", "finished"]
    assert words[1][:4] == ["market1501", "intra", "2/2", "-"]
    assert words[1][-1] == "finished"
    last = "not finished; if it is not at work: calr train-inter --resume runs/market1501/inter/b"
    assert answer.stderr.splitlines() == [last]


def test_a_path_is_not_broken_in_a_narrow_terminal(
    runs: list[RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("COLUMNS", "40")
        show_runs([summarise(runs[0].path)])
        terminal.flush()
        assert b" finished  " + str(runs[0].path).encode() in os.read(ours, 10_000)
    os.close(ours)


def test_folders_elsewhere_as_json(calr: Calr, runs: list[RunFolder]) -> None:
    answer = calr("runs", "elsewhere", "runs/market1501/intra", "--json")
    first, second = answer.json["runs"]
    assert (first["run"], first["mAP"], first["finished"]) == ("elsewhere/c", 61.0, True)
    assert second["run"] == "runs/market1501/intra/a"
    assert answer.stderr == ""


def test_a_damaged_run_is_a_warning(calr: Calr, runs: list[RunFolder]) -> None:
    (runs[1].path / "environment.json").write_text("{")
    answer = calr("runs", "--json")
    assert [run["run"] for run in answer.json["runs"]] == ["runs/market1501/intra/a"]
    line = "warning: runs/market1501/inter/b/environment.json is not as calr wrote it: left out"
    assert answer.stderr.splitlines() == [line]


def test_no_runs(calr: Calr, folder: Path) -> None:
    answer = calr("runs")
    assert (answer.exit_code, answer.stdout) == (0, "")
    assert answer.stderr == "no run in runs; to begin one: calr train -d NAME\n"
    assert calr("runs", "--json").json == {"runs": []}
    answer = calr("runs", "nowhere")
    assert (answer.exit_code, answer.errors) == (
        1,
        ["error: no folder nowhere. Give a folder with runs in it"],
    )


def test_a_list_does_without_torch(runs: list[RunFolder]) -> None:
    """Importing it takes seconds, a list of a thousand runs takes less."""
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom calr_cli.cli.app import app\n"
        "assert 'inter/b' in CliRunner().invoke(app, ['runs']).stdout\n"
        "print([name for name in ('torch', 'numpy', 'PIL', 'tensorboard') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("time", "words"),
    [
        ({"seconds": -5}, "now"),
        ({"seconds": 59}, "now"),
        ({"minutes": 1}, "1 min ago"),
        ({"hours": 23, "minutes": 59}, "23 h ago"),
        ({"days": 40}, "40 d ago"),
    ],
)
def test_how_long_ago(time: dict[str, int], words: str) -> None:
    assert ago(timedelta(**time)) == words
