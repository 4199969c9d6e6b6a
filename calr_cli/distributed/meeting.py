"""How the processes that a launcher has started find each other."""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from calr_cli.distributed.place import Place
from calr_cli.errors import WorkerError
from calr_cli.events import Reporter

JOIN_SECONDS = 600.0
"""How long a process waits for the others to start."""

TELL_AFTER = 10.0
"""Seconds after which it says for whom it waits."""

_PAUSE = 0.1
_ANSWER = timedelta(seconds=15)


def meet(place: Place, address: str, port: int, reporter: Reporter) -> Store:
    """The store through which the processes will speak, once all of them are there.

    Torch itself waits in silence and hears no signal meanwhile, so the waiting is done here.

    Args:
        place: Of this process.
        address: Of the machine of rank 0.
        port: Where it listens there.
        reporter: Warned once, in one process of each machine, if some are late.

    Raises:
        WorkerError: Some have not come in time.
        RuntimeError: The port cannot be used.
    """
    waiting = _Waiting(place, f"{address}:{port}", reporter)
    serves = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    while not serves and not _listens(address, port):
        waiting.go_on([0])
    store = TCPStore(
        address, port, place.world_size, serves, _ANSWER, wait_for_workers=False, multi_tenant=True
    )
    present = PrefixStore(f"calr-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    present.set(str(place.rank), "")
    while absent := [rank for rank in range(place.world_size) if not present.check([str(rank)])]:
        waiting.go_on(absent)
    return PrefixStore("torch", store)


class _Waiting:
    def __init__(self, place: Place, where: str, reporter: Reporter) -> None:
        self.who = f"process {place.rank} of {place.world_size}"
        self.where, self.reporter, self.begun = where, reporter, time.monotonic()
        self.tells = place.local_rank == 0

    def go_on(self, absent: list[int]) -> None:
        """Wait a little for processes that are not there yet.

        Raises:
            WorkerError: It was long enough.
        """
        passed = time.monotonic() - self.begun
        for_whom = f"at {self.where} for process{'es' * (len(absent) > 1)} {', '.join(map(str, absent))}"
        if passed > JOIN_SECONDS:
            raise WorkerError(
                f"{self.who} has waited {JOIN_SECONDS / 60:.0f} minutes {for_whom}",
                "Start all of them, or unset WORLD_SIZE to work with one",
            )
        if self.tells and passed > TELL_AFTER:
            self.tells = False
            self.reporter.warning(f"{self.who} waits {for_whom}, {JOIN_SECONDS / 60:.0f} minutes at most")
        time.sleep(_PAUSE)


def _listens(address: str, port: int) -> bool:
    """Whether somebody does; torch would try for itself, and write a line for every time."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True
