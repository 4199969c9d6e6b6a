"""Starts one process per device, watches the processes, and ends them together."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from calr_cli.distributed import collectives
from calr_cli.distributed.devices import gpu_identity, working_on
from calr_cli.distributed.interruption import SIGNALS, Interruption, deferred_interrupt
from calr_cli.distributed.place import told_place
from calr_cli.distributed.relay import OnlyWarnings, Replay, Said
from calr_cli.distributed.worker import (
    LINGER,
    Done,
    Failed,
    Interrupted,
    Job,
    Started,
    describe,
    run_job,
    watchdog_report,
)
from calr_cli.errors import ConfigError, WorkerError
from calr_cli.events import Reporter
from calr_cli.threads import available_cores

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds for which other processes may continue after an interrupt has ended the first process."""

GRACE = LINGER + 0.5
"""Seconds for which they may continue after a failure has ended it: what they would still do is lost anyway.

Elastic asks them to end and waits for 30 seconds, and a process that waits for a GPU does not hear it.
"""


def launch(
    work: Callable[..., T],
    arguments: Sequence[Any],
    *,
    devices: Sequence[torch.device],
    reporter: Reporter,
    logs: Path,
    everyone: bool = False,
    timeout: timedelta = collectives.STEP_TIMEOUT,
) -> T:
    """Run ``work(device, reporter, *arguments)`` on every device, as ranks that can use `collectives`.

    With one device, the work runs in this process. With several devices, each has a process, whose output
    goes to a file in ``logs``. If torchrun has started the processes, this process is a rank, on its own
    device.

    Args:
        work: Function of a module, because other processes have to find it.
        arguments: Arguments of ``work``; with several devices they have to be picklable.
        devices: Devices of this machine.
        reporter: Receiver of the messages of rank 0 and the warnings of all ranks.
        logs: Folder for ``process-<rank>.log``; empty logs are removed.
        everyone: Whether the reporter receives the messages of all ranks, with the device before the titles
            of stages and progress.
        timeout: Longest time for which a process may keep the others waiting within a step.

    Returns:
        The result of ``work`` on rank 0; with several devices it has to be picklable.

    Raises:
        CalrError: A rank raised it; it is raised again unchanged.
        OSError: A rank raised it; it is raised again unchanged.
        WorkerError: A process ended in another way; says which, on which device, and why.
        KeyboardInterrupt: SIGINT or SIGTERM came. The ranks ended by themselves, or a second signal killed
            them.
    """
    if place := told_place():
        return _as_rank(work, arguments, devices[place.local_rank], reporter, timeout)
    if len(devices) == 1:
        with working_on(devices[0]):
            return work(devices[0], reporter, *arguments)
    torch.cuda.empty_cache()  # what estimates took here belongs to the processes now
    logs.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    readers, writers = zip(*(context.Pipe(duplex=False) for _ in devices), strict=True)
    job = Job(work, tuple(arguments), tuple(devices), writers, logs, everyone, timeout)
    try:
        return cast(T, _Launch(job, readers, reporter).result())
    finally:
        for end in (*readers, *writers):
            end.close()
        _remove_empty(logs)


def _as_rank(
    work: Callable[..., T],
    arguments: Sequence[Any],
    device: torch.device,
    reporter: Reporter,
    timeout: timedelta,
) -> T:
    with working_on(device):
        collectives.join(timeout, reporter)
        _require_gpus_of_their_own(device)
        _undo_one_thread(device)
        try:
            return work(device, reporter if collectives.is_main() else OnlyWarnings(reporter), *arguments)
        except RuntimeError as error:
            said = describe(error)
            if said.startswith(type(error).__name__):
                raise
            raise WorkerError(f"process {collectives.rank()} ({device}): {said}") from None


def _require_gpus_of_their_own(device: torch.device) -> None:
    """Raise if two processes work on one GPU: NCCL refuses that later, in words about itself.

    Raises:
        ConfigError: They do; the same in every process.
    """
    mine = None if device.type == "cpu" else (socket.gethostname(), gpu_identity(device))
    places = collectives.gather(mine)
    for rank, place in enumerate(places):
        if place is not None and place in places[:rank]:
            raise ConfigError(
                f"processes {places.index(place)} and {rank} have the same GPU of {place[0]}",
                "Start one process for each GPU, and show each all of them or only its own",
            )


def _undo_one_thread(device: torch.device) -> None:
    """Give rank 0, which makes labels while the others wait, the cores that torchrun keeps from it.

    Torchrun sets OMP_NUM_THREADS to 1 where it is not set, whatever the number of cores.
    """
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("OMP_NUM_THREADS") == "1"
    if device.type == "cuda" and collectives.is_main() and by_torchrun:
        torch.set_num_threads(available_cores())


class _Launch:
    """The processes of one launch, and their messages so far.

    Elastic supervises from a thread, so that the main thread can listen and be interrupted.
    """

    def __init__(self, job: Job, readers: Sequence[Connection], reporter: Reporter) -> None:
        self.job, self.readers = job, readers
        self.replay = Replay(reporter)
        self.started: set[int] = set()
        self.failed: dict[int, Failed] = {}
        self.interrupted: dict[int, float] = {}
        self.done: set[int] = set()
        self.vanished: set[int] = set()
        self.failing: float | None = None
        self.killed: set[int] = set()
        self.stopping = False
        self.others = multiprocessing.active_children()

    def result(self) -> Any:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=len(self.job.devices),
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            start_method="spawn",
            logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
        )
        with _fair_threads(self.job), _quiet_elastic():
            # The processes inherit the mask of the thread that starts them (see `run_job`), if that thread
            # does not have to start the resource tracker first, which unblocks signals.
            resource_tracker.ensure_running()
            block = (signal.SIG_BLOCK, SIGNALS)
            with ThreadPoolExecutor(1, initializer=signal.pthread_sigmask, initargs=block) as supervisor:
                done = supervisor.submit(elastic_launch(config, run_job), self.job)
                try:
                    with deferred_interrupt() as interruption:
                        self._watch(done, interruption)
                finally:
                    for process in self._processes():
                        process.kill()
                    self.replay.close()
        if self.stopping:
            raise KeyboardInterrupt
        try:
            return done.result()[0]
        except ChildFailedError as error:
            raise self._cause(error) from None

    def _watch(self, done: Future[Any], interruption: Interruption) -> None:
        told = False
        while not done.done():
            self._listen(0.1)
            if self.interrupted:
                self._listen(0)  # who ended before that is only now to be seen, see `_hear`
            # Elastic, too, tells the others to end after one has failed; that is no interrupt.
            if interruption.requested or (self.interrupted and not self.failed and not self.vanished):
                self.stopping = True
            if self.stopping and not told:
                told = True
                for process in self._processes():
                    process.terminate()
            if self.interrupted and time.monotonic() - min(self.interrupted.values()) > PATIENCE:
                for process in self._processes():
                    process.kill()
            if self.failing is not None and time.monotonic() - self.failing > GRACE:
                if not self.killed:
                    self.killed = set(range(len(self.readers))) - self.failed.keys() - self.vanished
                for process in self._processes():
                    process.kill()
        while self._listen(0):
            pass

    def _listen(self, seconds: float) -> bool:
        """Take one message of every process that has some; return whether there was any."""
        ready = wait([reader for reader in self.readers if not reader.closed], seconds)
        for rank, reader in enumerate(self.readers):
            if reader in ready:
                try:
                    self._hear(rank, reader.recv())
                except (EOFError, OSError):
                    reader.close()
                    self.vanished |= {rank} - self.failed.keys() - self.interrupted.keys() - self.done
        if self.failing is None and not self.stopping and (self.failed or self.vanished):
            self.failing = time.monotonic()
        return bool(ready)

    def _hear(self, rank: int, message: Said | Started | Done | Failed | Interrupted) -> None:
        match message:
            case Said():
                self.replay(rank, message)
            case Started():
                self.started.add(rank)
            case Done():
                self.done.add(rank)
            case Failed():
                self.failed[rank] = message
            case Interrupted():
                self.interrupted[rank] = time.monotonic()
        # Every process is handed all writers, so they are needed here until the last one has started. From
        # then on only its process has a writer, and the end of a process is seen.
        if self.interrupted or len(self.started) == len(self.readers):
            for writer in self.job.writers:
                writer.close()

    def _processes(self) -> list[BaseProcess]:
        return [child for child in multiprocessing.active_children() if child not in self.others]

    def _cause(self, error: ChildFailedError) -> Exception:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0 and rank not in self.killed:
            name = failure.signal_name()
            text, hint = f"was ended by {name}", "See its log: {log}"
            if name == "SIGABRT" and (report := watchdog_report(self.job.log(rank))):
                text = f"failed: {report}"
            if name == "SIGKILL":
                hint = "Somebody killed it, or the memory of the machine is full"
        elif self.failed:
            rank, failed = min(self.failed.items(), key=lambda item: item[1].when)
            if failed.error is not None:
                return failed.error
            text, hint = f"failed: {failed.text}", "See its log: {log}"
        else:
            text, hint = f"ended with exit code {failure.exitcode}", "See its log: {log}"
        who = f"process {rank} ({self.job.devices[rank]})"
        return WorkerError(f"{who} {text}", hint.format(log=self.job.log(rank)))


@contextmanager
def _fair_threads(job: Job) -> Iterator[None]:
    """Divide the threads among processes that compute on the CPU at the same time.

    With a GPU each they do so only where each makes labels of its own; else the first makes all of them.
    """
    name, shared = "OMP_NUM_THREADS", job.everyone or all(device.type == "cpu" for device in job.devices)
    before = os.environ.get(name)
    if shared:
        os.environ[name] = str(max(1, torch.get_num_threads() // len(job.devices)))
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before
        else:
            os.environ.pop(name, None)


@contextmanager
def _quiet_elastic() -> Iterator[None]:
    """Suppress elastic's log lines; the one line of our error says everything that matters in them."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _remove_empty(logs: Path) -> None:
    for log in logs.glob("process-*.log"):
        if not log.stat().st_size:
            log.unlink()
    if not any(logs.iterdir()):
        logs.rmdir()
