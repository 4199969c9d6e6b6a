"""Work for several processes; they import this file, so it stays light.

``python -m tests.support.ranks WORK FOLDER`` launches one on two processes, or is a rank of torchrun's.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calr_cli.distributed import collectives
from calr_cli.distributed.devices import choose_devices
from calr_cli.distributed.interruption import deferred_interrupt
from calr_cli.distributed.launch import launch
from calr_cli.errors import DataError
from calr_cli.events import Reporter, SilentReporter

CPU = torch.device("cpu")


def say_hello(device: torch.device, reporter: Reporter, folder: Path) -> list[Any]:
    """Leave a file that says who this is."""
    rank = collectives.rank()
    (folder / f"rank-{rank}").write_text(str(os.getpid()))
    return collectives.gather(
        (rank, collectives.world_size(), int(os.environ.get("LOCAL_RANK", 0)), str(device))
    )


class LateSecond:
    """Becomes the folder in a process; the second process is started only when the first is at work."""

    def __init__(self, folder: Path, logs: Path) -> None:
        self.folder, self.first_log, self.started = folder, logs / "process-0.log", 0

    def __reduce__(self) -> tuple[type[Path], tuple[str]]:
        """What a process makes of it; called in the parent, once for each process."""
        self.started += 1
        if self.started == 2:
            while not self.first_log.exists():
                time.sleep(0.01)
            time.sleep(1)  # the parent hears of it
        return Path, (str(self.folder),)


class KillsSecond:
    """The second process is killed before it has said anything."""

    started = 0

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        """What a process makes of it; called in the parent, once for each process."""
        self.started += 1
        return (_be_killed_after, (3.0,)) if self.started == 2 else (Path, ())


def _be_killed_after(seconds: float) -> None:
    time.sleep(seconds)  # the other has started by then
    os.kill(os.getpid(), signal.SIGKILL)


def use_collectives(device: torch.device, reporter: Reporter, folder: Path) -> list[dict[str, Any]]:
    """What every rank gets of every collective."""
    rank = collectives.rank()
    doubles = torch.full((rank + 1, 2), rank + 0.5, dtype=torch.float64, requires_grad=True)
    halves = torch.full((2 * rank, 3), rank + 0.5, dtype=torch.bfloat16)
    with collectives.alone():
        alone = collectives.rank(), collectives.world_size(), collectives.gather(rank)
    got = {
        "broadcast": collectives.broadcast({"labels": np.arange(3)} if rank == 0 else None),
        "gather": collectives.gather("x" * 1000 * rank),
        "doubles": collectives.gather_rows(doubles),
        "halves": collectives.gather_rows(halves, [0, 2]).float(),
        "nothing": collectives.gather_rows(torch.empty(0, 3)),
        "rows": collectives.collect_rows(np.full((2 - rank, 2), rank, np.int64), [2, 1]),
        "sum": collectives.sum_over_ranks(torch.tensor([1.0, rank])),
        "copy": collectives.copy_from_main(torch.tensor(rank + 7)),
        "alone": alone,
        "mapped": bytes_mapped_for(64 << 20),
        "threads": (os.environ["OMP_NUM_THREADS"], torch.get_num_threads()),
    }
    collectives.barrier()
    return collectives.gather(got)


class _Malloc(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def bytes_mapped_for(size: int) -> int | None:
    """Bytes that malloc takes from the kernel for a block of ``size``, to return them; None: not glibc."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return None
    mallinfo.restype = _Malloc
    before = mallinfo().hblkhd
    block = torch.empty(size, dtype=torch.uint8)
    mapped: int = mallinfo().hblkhd - before
    del block
    return mapped


def talk(device: torch.device, reporter: Reporter, folder: Path) -> None:
    """Say something of every kind, on every rank."""
    reporter.stage(f"stage of {collectives.rank()}")
    reporter.note("the same note")
    reporter.warning(f"warning of {collectives.rank()}")
    reporter.metric({"rank": collectives.rank()})
    with reporter.progress(f"step of {collectives.rank()}", 1000, "images") as progress:
        for _ in range(1000):
            progress.advance(loss=0.5)
    print(f"printed by {collectives.rank()}" if collectives.rank() else "", end="")


def raise_data_error(device: torch.device, reporter: Reporter, folder: Path) -> None:
    """A file of the user's is wrong, and the one rank that sees it leaves the other waiting."""
    if collectives.rank() == 1:
        raise DataError(["first.jpg is no image", "second.jpg is no image"], "Remove them")
    collectives.barrier()


def divide_by_zero(device: torch.device, reporter: Reporter, folder: Path) -> None:
    """Our own mistake, on one rank."""
    if collectives.rank() == 1:
        1 / 0  # noqa: B018
    collectives.barrier()


def be_killed(device: torch.device, reporter: Reporter, folder: Path) -> None:
    """What the kernel does where memory ends."""
    say_hello(device, reporter, folder)
    if collectives.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    collectives.sum_over_ranks(torch.ones(1))


def hang(device: torch.device, reporter: Reporter, folder: Path) -> None:
    """One rank stops; the other waits for it within a step."""
    say_hello(device, reporter, folder)
    if collectives.rank() == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    collectives.sum_over_ranks(torch.ones(1))


def be_busy(device: torch.device, reporter: Reporter, folder: Path) -> None:
    """One rank fails; the other is in a long step, in which it hears no signal, as within a kernel."""
    say_hello(device, reporter, folder)
    if collectives.rank() == 1:
        raise DataError("first.jpg is no image")
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    time.sleep(200)


def be_aborted(device: torch.device, reporter: Reporter, folder: Path) -> None:
    """What NCCL's watchdog does to a rank whose step has waited too long for another."""
    say_hello(device, reporter, folder)
    if collectives.rank() == 1:
        words = "[rank1]:[E ProcessGroupNCCL.cpp:629] [Rank 1] Watchdog caught collective operation timeout: "
        print(words + "WorkNCCL(OpType=ALLREDUCE) ran for 1800010 milliseconds before timing out.")
        sys.stdout.flush()
        os.abort()
    collectives.barrier()


def be_interrupted(device: torch.device, reporter: Reporter, folder: Path) -> None:
    """Rank 0 causes a Ctrl-C in the middle of its step; rank 1 waits for its labels."""
    if collectives.rank() == 1:
        collectives.broadcast(None)
    with deferred_interrupt() as interruption:
        os.kill(os.getppid(), signal.SIGINT)
        while not interruption.requested:
            time.sleep(0.01)
        (folder / "saved").touch()
        raise KeyboardInterrupt


def main(work: str, folder: str) -> None:
    """Launch the work called ``work``; 130 if it is interrupted."""
    told = "WORLD_SIZE" in os.environ
    devices = choose_devices(None, "cpu", None if told else 2, SilentReporter())
    try:
        result = launch(
            globals()[work],
            [Path(folder)],
            devices=devices,
            reporter=SilentReporter(),
            logs=Path(folder) / "logs",
            timeout=timedelta(minutes=2),
        )
    except KeyboardInterrupt:
        sys.exit(130)
    (Path(folder) / f"result-{os.environ.get('RANK')}").write_text(repr(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
