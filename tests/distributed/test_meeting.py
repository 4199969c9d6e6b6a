"""Processes whose peers are late, never come, or are stopped while they wait."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import calr_cli

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(120)]

WAITER = """
import signal, sys
from calr_cli.distributed import collectives, meeting
from calr_cli.errors import CalrError
from calr_cli.events import SilentReporter

class Teller(SilentReporter):
    def warning(self, text):
        print(text, flush=True)

signal.signal(signal.SIGTERM, signal.default_int_handler)
meeting.TELL_AFTER, meeting.JOIN_SECONDS = 0.5, float(sys.argv[1])
print("begins", flush=True)
try:
    collectives.join(reporter=Teller())
    print(collectives.gather(collectives.rank()))
except CalrError as error:
    print(*error.lines(), sep="\\n")
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


@contextmanager
def waiting(rank: int, port: int, patience: float = 600) -> Iterator[subprocess.Popen[str]]:
    """One of two processes, as a cluster's launcher starts them."""
    told = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, "-c", WAITER, str(patience)],
        env={**os.environ, **told, "PYTHONPATH": str(Path(calr_cli.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        yield process
        process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_waited_for_is_told_and_signals_are_heard(port: int, rank: int, number: int) -> None:
    """Such a process was silent, survived two Ctrl-C and SIGTERM, and was there after half an hour."""
    with waiting(rank, port) as process:
        assert line_of(process) == (
            f"process {rank} of 2 waits at 127.0.0.1:{port} for process {1 - rank}, 10 minutes at most"
        )
        process.send_signal(number)
        begun = time.monotonic()
        assert process.wait(10) == 130
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize("rank", [0, 1])
def test_the_wait_ends_with_one_line(port: int, rank: int) -> None:
    with waiting(rank, port, patience=1) as process:
        line_of(process)
        assert process.communicate()[0].splitlines() == [
            f"process {rank} of 2 has waited 0 minutes at 127.0.0.1:{port} for process {1 - rank}. "
            "Start all of them, or unset WORLD_SIZE to work with one"
        ]


def test_a_late_process_is_welcome(port: int) -> None:
    with waiting(1, port) as early:
        line_of(early)
        with waiting(0, port) as late:
            assert late.communicate()[0].splitlines() == early.communicate()[0].splitlines() == ["[0, 1]"]


def test_a_port_that_is_taken(port: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with waiting(0, port) as process:
            (line,) = [text for text in process.communicate()[0].splitlines() if "cannot join" in text]
    assert line.startswith(f"process 0 cannot join the others at 127.0.0.1:{port}: ")
