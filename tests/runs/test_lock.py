"""One command at a time in a run folder: held by real processes, killed and interrupted."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import calr_cli
from calr_cli.errors import CheckpointError
from calr_cli.runs.lock import hold, release_all
from tests.support.heard import Heard

HOLDER = """
import sys
from pathlib import Path
from calr_cli.events import SilentReporter
from calr_cli.runs.lock import hold, release_all
hold(Path(sys.argv[1]), SilentReporter())
print("held", flush=True)
sys.stdin.read()
release_all()
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def nothing_is_held_after_a_test() -> Iterator[None]:
    yield
    release_all()


@contextmanager
def held_elsewhere(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(calr_cli.__file__).parents[1])},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_who_has_the_run_is_told(run: Path) -> None:
    with held_elsewhere(run) as other, pytest.raises(CheckpointError) as error:
        hold(run, Heard())
    (line,) = error.value.lines()
    assert line.startswith(f"{run} is being trained by another command, process {other.pid} on ")
    assert line.endswith(". Wait until it has ended, or stop it first")


def test_a_killed_command_keeps_nobody_out(run: Path) -> None:
    with held_elsewhere(run) as other:
        other.kill()
        other.wait()
        assert (run / ".lock").exists()
        hold(run, Heard())
    assert f"process {os.getpid()} on " in (run / ".lock").read_text()


def test_an_orderly_end_leaves_nothing(run: Path) -> None:
    with held_elsewhere(run) as other:
        other.communicate()
    assert [path.name for path in run.iterdir()] == ["config.yaml"]
    hold(run, Heard())
    hold(run / ".." / "run", Heard())  # one's own lock is no obstacle
    release_all()
    assert [path.name for path in run.iterdir()] == ["config.yaml"]


def test_a_lock_that_its_holder_removes_at_that_moment_is_none(run: Path) -> None:
    """Of two that wait for the same file, one must not be left with a file that nobody else will find."""
    flock = fcntl.flock

    def removed_before(handle: int, how: int) -> None:
        flock(handle, how)
        if (run / ".lock").exists():
            (run / ".lock").unlink()
            monkeypatch.undo()

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(fcntl, "flock", removed_before)
        hold(run, Heard())
    assert (run / ".lock").exists()


def test_all_runs_of_a_training_are_held(tmp_path: Path) -> None:
    runs = [tmp_path / "both" / stage for stage in ("intra", "inter")]
    runs += [tmp_path / "seeds" / seed / stage for seed in ("seed1", "seed2") for stage in ("intra", "inter")]
    for run in runs:
        run.mkdir(parents=True)
        (run / "config.yaml").touch()
    with held_elsewhere(tmp_path / "both"):
        for stage in runs[:2]:
            with pytest.raises(CheckpointError, match="is being trained by another command"):
                hold(stage, Heard())
    with held_elsewhere(tmp_path / "seeds"):
        for one in runs[2:]:
            with pytest.raises(CheckpointError, match="is being trained by another command"):
                hold(one, Heard())


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    hold(tmp_path / "nowhere", Heard())
    hold(tmp_path, Heard())
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    heard = Heard()
    hold(run, heard)
    assert heard.notes == [
        f"{run} cannot be locked (No locks available): see to it that no other command trains in it"
    ]
