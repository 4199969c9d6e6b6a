"""One process of a run: it prepares the work, does it, and reports how it ended."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from calr_cli.allocation import keep_freed_memory
from calr_cli.distributed import collectives
from calr_cli.distributed.devices import working_on
from calr_cli.distributed.relay import OnlyWarnings, Relay
from calr_cli.errors import CalrError
from calr_cli.events import Reporter

LINGER = 2.0
"""Seconds between the report of a failure and the end: a killed process, its cause, is noticed first."""

_NO_ANSWER = "the other processes do not answer"
_SILENCE = re.compile(
    r"(gloo|nccl).*(timed out|timeout|closed by peer|reset by peer|broken pipe|ncclRemoteError)",
    re.DOTALL | re.IGNORECASE,
)
"""What gloo and NCCL say where another process is gone or does not come, not where they cannot begin."""
_WATCHDOG = re.compile(r"Watchdog caught collective operation timeout.*")
_LOG_TAIL = 2**18


@dataclass(frozen=True)
class Job:
    """The instructions for all processes; lists by rank have an item for each process."""

    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    devices: tuple[torch.device, ...]
    writers: tuple[Connection, ...]
    logs: Path
    everyone: bool
    timeout: timedelta

    def name(self, rank: int) -> str:
        """The name of a process for the user."""
        device = self.devices[rank]
        return f"process {rank}" if device.type == "cpu" else str(device)

    def log(self, rank: int) -> Path:
        """The file for stdout and stderr of a process."""
        return self.logs / f"process-{rank}.log"


@dataclass(frozen=True)
class Started:
    """The first message of a process."""


@dataclass(frozen=True)
class Done:
    """The last message of a process whose work is done; it lives on until the others are done too."""


@dataclass(frozen=True)
class Failed:
    """The last message of a process that failed.

    Attributes:
        when: Time of the failure, in seconds since the epoch.
        error: An error whose text is meant for the user, or None.
        text: Type and message of any other exception.
    """

    when: float
    error: Exception | None
    text: str


@dataclass(frozen=True)
class Interrupted:
    """The last message of a process that was told to end."""


def run_job(job: Job) -> Any:
    """Do the work as one of several processes; return the result on rank 0 and None on the other ranks.

    Only the parent receives Ctrl-C: it starts the processes with SIGINT and SIGTERM blocked, and sends them
    SIGTERM when they should end.
    """
    rank = int(os.environ["LOCAL_RANK"])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _write_to(job.log(rank))
    keep_freed_memory()  # as the command has done: a limit of malloc holds for one process
    writer = job.writers[rank]
    for other in job.writers:
        if other is not writer:
            other.close()  # or the parent would not see that its process has gone
    lock = threading.Lock()

    def send(message: Any) -> None:
        with lock:
            writer.send(message)

    relay = Relay(send, f"{job.name(rank)} " if job.everyone else "")
    reporter: Reporter = relay if rank == 0 or job.everyone else OnlyWarnings(relay)
    send(Started())
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        device = job.devices[rank]
        with working_on(device):
            collectives.join(job.timeout)  # the parent sees who does not come
            result = job.work(device, reporter, *job.arguments)
            collectives.barrier()
            collectives.leave()
        send(Done())
        return result if rank == 0 else None
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        send(Interrupted())
        return None
    except Exception as error:
        _fail(error, send)


def _fail(error: Exception, send: Callable[[Any], None]) -> None:
    try:
        traceback.print_exc()
        known = isinstance(error, CalrError) or (isinstance(error, OSError) and error.errno is not None)
        send(Failed(time.time(), error if known else None, describe(error)))
        time.sleep(LINGER)
    finally:  # told to end, too
        sys.stdout.flush()
        os._exit(1)  # an orderly end would wait for what the other processes no longer do


def describe(error: Exception) -> str:
    """Type and first line of an exception, or a remark that it is about the other processes."""
    lines = str(error).splitlines() or [""]
    # What NCCL says of itself comes first; what is wrong comes after these words.
    cause = lines[lines.index("Last error:") + 1 :][:1] if "Last error:" in lines else []
    line = " ".join([lines[0], *cause])
    is_silence = isinstance(error, RuntimeError) and _SILENCE.search(str(error))
    return f"{_NO_ANSWER if is_silence else type(error).__name__}: {line}"


def watchdog_report(log: Path) -> str | None:
    """What `describe` would say of a process that NCCL's watchdog has ended; None if it has not.

    The watchdog waits for as long as the group's time-out says, `collectives.STEP_TIMEOUT`, and then ends the
    process by SIGABRT: TORCH_NCCL_ASYNC_ERROR_HANDLING is 3 by default, which tears the process down without
    an exception (docs.pytorch.org/docs/stable/torch_nccl_environment_variables.html). Only its log knows why.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_TAIL))
            found = _WATCHDOG.search(file.read().decode(errors="replace"))
    except OSError:  # it has written nothing
        return None
    return found and f"{_NO_ANSWER}: {found[0].rstrip('.')}"


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _write_to(path: Path) -> None:
    with path.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
