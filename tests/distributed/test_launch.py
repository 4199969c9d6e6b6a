"""Processes that work, fail, are killed and are interrupted, through our own launcher."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from calr_cli.distributed.launch import launch
from calr_cli.errors import DataError, WorkerError
from tests.distributed.test_relay import Transcript
from tests.support import ranks
from tests.support.heard import Heard

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(240)]

REPOSITORY = Path(__file__).resolve().parents[2]


def launched(work: Callable[..., Any], folder: Path, **options: Any) -> Any:
    options = {"reporter": Heard(), "logs": folder / "logs"} | options
    return launch(work, [folder], devices=[ranks.CPU, ranks.CPU], **options)


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    environment = dict(os.environ)
    yield
    assert not multiprocessing.active_children()
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    ours = {"PYTEST_CURRENT_TEST", "TORCHELASTIC_SIGNALS_TO_HANDLE"}
    assert {k: v for k, v in os.environ.items() if k not in ours} == {
        k: v for k, v in environment.items() if k not in ours
    }


def test_one_device_is_worked_on_in_this_process(tmp_path: Path) -> None:
    result = launch(
        ranks.say_hello, [tmp_path], devices=[ranks.CPU], reporter=Heard(), logs=tmp_path / "logs"
    )
    assert result == [(0, 1, 0, "cpu")]
    assert (tmp_path / "rank-0").read_text() == str(os.getpid())
    assert not (tmp_path / "logs").exists()


def test_rank_0_speaks_for_all_and_all_may_warn(tmp_path: Path) -> None:
    transcript = Transcript()
    assert launched(ranks.talk, tmp_path, reporter=transcript) is None
    said = [line for line in transcript.lines if not line.startswith("step")]
    assert sorted(said) == [
        "begin step of 0 1000 images",
        "end step of 0",
        "metric {'rank': 0}",
        "note the same note",
        "stage stage of 0",
        "warning warning of 0",
        "warning warning of 1",
    ]
    assert "step of 0 at 1000 {'loss': 0.5}" in transcript.lines
    assert [log.name for log in (tmp_path / "logs").iterdir()] == ["process-1.log"]
    assert (tmp_path / "logs" / "process-1.log").read_text() == "printed by 1"


def test_all_may_speak_and_say_who_they_are(tmp_path: Path) -> None:
    transcript = Transcript()
    launched(ranks.talk, tmp_path, reporter=transcript, everyone=True)
    for rank in (0, 1):
        assert f"begin process {rank} step of {rank} 1000 images" in transcript.lines
        assert f"stage process {rank} stage of {rank}" in transcript.lines
        assert f"metric {{'rank': {rank}}}" in transcript.lines
    assert transcript.lines.count("note the same note") == 1


def test_a_process_that_speaks_before_the_next_is_started(tmp_path: Path) -> None:
    late = ranks.LateSecond(tmp_path, tmp_path / "logs")
    devices = [ranks.CPU, ranks.CPU]
    said = launch(ranks.say_hello, [late], devices=devices, reporter=Heard(), logs=tmp_path / "logs")
    assert [rank for rank, *_ in said] == [0, 1]


def test_a_process_that_is_killed_before_it_speaks_is_no_interrupt(tmp_path: Path) -> None:
    devices = [ranks.CPU, ranks.CPU]
    with pytest.raises(WorkerError, match=r"^process 1 \(cpu\) was ended by SIGKILL"):
        launch(
            ranks.say_hello,
            [ranks.KillsSecond()],
            devices=devices,
            reporter=Heard(),
            logs=tmp_path / "logs",
        )


def test_an_error_of_the_user_comes_back_as_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError) as raised:
        launched(ranks.raise_data_error, tmp_path)
    assert raised.value.problems == ("first.jpg is no image", "second.jpg is no image")
    assert raised.value.hint == "Remove them"
    assert capfd.readouterr() == ("", "")


def test_another_error_says_who_where_and_what(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WorkerError) as raised:
        launched(ranks.divide_by_zero, tmp_path)
    log = tmp_path / "logs" / "process-1.log"
    assert raised.value.lines() == [
        f"process 1 (cpu) failed: ZeroDivisionError: division by zero. See its log: {log}"
    ]
    assert "in divide_by_zero" in log.read_text()
    assert capfd.readouterr() == ("", "")


def test_a_killed_process_is_named_and_takes_the_others_with_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WorkerError, match=r"^process 1 \(cpu\) was ended by SIGKILL\. Somebody killed it"):
        launched(ranks.be_killed, tmp_path)
    assert not any(psutil.pid_exists(pid) for pid in pids(tmp_path))
    assert capfd.readouterr() == ("", "")


def test_a_process_that_hangs_is_not_waited_for_longer_than_the_time_out(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"^process 0 \(cpu\) failed: the other processes do not answer"):
        launched(ranks.hang, tmp_path, timeout=timedelta(seconds=10))
    assert not any(psutil.pid_exists(pid) for pid in pids(tmp_path))


def test_a_failure_is_told_at_once_though_another_process_is_busy(tmp_path: Path) -> None:
    """Elastic asks the others to end and waits for 30 seconds; the line came after 32.7."""
    begun = time.time()
    with pytest.raises(DataError, match=r"^first\.jpg is no image$"):
        launched(ranks.be_busy, tmp_path)
    told, failed = time.time(), max(file.stat().st_mtime for file in tmp_path.glob("rank-*"))
    assert begun < failed
    assert told - failed < 15  # 2.5 where nothing else runs
    assert not any(psutil.pid_exists(pid) for pid in pids(tmp_path))


def test_what_the_watchdog_of_nccl_ends_has_had_no_answer(tmp_path: Path) -> None:
    with pytest.raises(WorkerError) as raised:
        launched(ranks.be_aborted, tmp_path)
    assert raised.value.lines() == [
        "process 1 (cpu) failed: the other processes do not answer: Watchdog caught collective operation "
        "timeout: WorkNCCL(OpType=ALLREDUCE) ran for 1800010 milliseconds before timing out. "
        f"See its log: {tmp_path / 'logs' / 'process-1.log'}"
    ]


def test_an_interrupt_lets_the_step_be_finished(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        launched(ranks.be_interrupted, tmp_path)
    assert (tmp_path / "saved").exists()
    assert capfd.readouterr() == ("", "")


@contextmanager
def started(work: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The work in a command of its own, with a process group of its own as a terminal gives it."""
    with (folder / "stderr").open("wb") as stderr:
        command = subprocess.Popen(
            [sys.executable, "-m", "tests.support.ranks", work, str(folder)],
            cwd=REPOSITORY,
            start_new_session=True,
            stderr=stderr,
        )
    try:
        yield command
    finally:
        with suppress(ProcessLookupError):  # as it should be
            os.killpg(command.pid, signal.SIGKILL)
        command.wait()


def pids(folder: Path) -> list[int]:
    """The processes that said hello; waits for two."""
    wait_until(lambda: len([f for f in folder.glob("rank-*") if f.read_text()]) == 2)
    return [int(file.read_text()) for file in folder.glob("rank-*")]


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():  # the test's own time limit ends this
        time.sleep(0.1)


def test_processes_end_with_the_command_that_started_them(tmp_path: Path) -> None:
    with started("hang", tmp_path) as command:  # one waits within a collective, the other is stopped
        workers = pids(tmp_path)
        offspring = psutil.Process(command.pid).children(recursive=True)
        assert {process.pid for process in offspring} >= set(workers)
        command.kill()
        command.wait()
        os.kill(int((tmp_path / "rank-1").read_text()), signal.SIGCONT)
        wait_until(lambda: not any(alive(process) for process in offspring))


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_ctrl_c_while_the_processes_are_starting_says_nothing(tmp_path: Path) -> None:
    with started("hang", tmp_path) as command:
        wait_until(lambda: len(psutil.Process(command.pid).children()) == 3)  # with the resource tracker
        os.killpg(command.pid, signal.SIGINT)
        assert command.wait() == 130
        assert (tmp_path / "stderr").read_text() == ""


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def test_a_launcher_that_does_not_say_how_many_processes_a_machine_has(tmp_path: Path) -> None:
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    ours = {name: value for name, value in os.environ.items() if name != "LOCAL_WORLD_SIZE"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.ranks", "say_hello", str(tmp_path)],
            cwd=REPOSITORY,
            env={**ours, **told, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0, output
    assert (tmp_path / "result-1").read_text() == "[(0, 2, 0, 'cpu'), (1, 2, 1, 'cpu')]"


def test_two_machines_with_torchrun(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--master-addr", "127.0.0.1", "--master-port", free_port()]
    agents = [
        subprocess.Popen(
            [*torchrun, "--node-rank", str(node), "-m", "tests.support.ranks", "say_hello", str(tmp_path)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for node in (0, 1)
    ]
    for agent in agents:
        output, _ = agent.communicate()
        assert agent.returncode == 0, output
    for rank in ("0", "1"):
        assert (tmp_path / f"result-{rank}").read_text() == "[(0, 2, 0, 'cpu'), (1, 2, 0, 'cpu')]"
