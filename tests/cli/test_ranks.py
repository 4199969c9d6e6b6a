"""Of the processes that torchrun started the first one works and prints for all."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import calr_cli
from calr_cli.cli.console import RichReporter, print_json, reporter_for
from calr_cli.cli.ranks import is_main, on_main
from calr_cli.distributed import collectives
from calr_cli.events import SilentReporter


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What this process sends to the others."""
    values: list[object] = []
    monkeypatch.setattr(collectives, "broadcast", values.append)
    return values


def test_the_first_process_sends_what_it_made(monkeypatch: pytest.MonkeyPatch, sent: list[object]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    assert on_main(lambda: "made") == "made"
    assert on_main(lambda: None) is None
    assert sent == [["made"], [None]]  # told from the None of a failure


def test_nobody_waits_for_a_first_process_that_failed(
    monkeypatch: pytest.MonkeyPatch, sent: list[object]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ZeroDivisionError):
        on_main(lambda: 1 // 0)
    assert sent == [None]


def test_the_others_take_what_they_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(collectives, "broadcast", lambda value: [None])
    assert on_main(lambda: 1 // 0) is None
    monkeypatch.setattr(collectives, "broadcast", lambda value: None)
    with pytest.raises(typer.Exit) as caught:
        on_main(lambda: 1)
    assert caught.value.exit_code == 1


def test_results_and_notes_are_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "1")  # left by another command: there are no others without WORLD_SIZE
    assert is_main()
    assert isinstance(reporter_for(False), RichReporter)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert not is_main()
    assert isinstance(reporter_for(False), SilentReporter)
    print_json({"mAP": 1.0})
    assert capsys.readouterr() == ("", "")


@pytest.mark.distributed
@pytest.mark.timeout(180)
def test_a_command_whose_peers_never_come_ends_by_two_signals(tmp_path: Path) -> None:
    told = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        told["MASTER_PORT"] = str(free.getsockname()[1])
    command = ["train-intra", "-d", "synthetic", "--recipe", "calr", "--device", "cpu"]
    with subprocess.Popen(
        [sys.executable, "-m", "calr_cli", *command],
        cwd=tmp_path,
        env={**os.environ, **told, "PYTHONPATH": str(Path(calr_cli.__file__).parents[1])},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        where = f"127.0.0.1:{told['MASTER_PORT']}"
        assert process.stderr.readline() == (
            f"warning: process 0 of 2 waits at {where} for process 1, 10 minutes at most\n"
        )
        process.send_signal(signal.SIGTERM)
        assert process.stderr.readline() == "interrupted\n"
        process.send_signal(signal.SIGTERM)
        assert process.stderr.read() == ""
        assert process.wait() in (130, -signal.SIGTERM)
