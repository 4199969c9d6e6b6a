"""Threads: how many this process may use on its machine, how they wait, and whether others need the cores."""

from __future__ import annotations

import math
import os
import sys

from calr_cli.control_groups import cpu_quota
from calr_cli.errors import ConfigError

_VARIABLE = "OMP_NUM_THREADS"
"""Read by torch, NumPy and FAISS when they are loaded, and by the processes that calr starts."""

_BUSY = 2
"""Programs that want to compute, per core of the machine, from which on every program takes much longer."""


def available_cores() -> int:
    """Cores that this process may use: those it is bound to, within the container's quota of their time."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return bound if quota is None else max(1, min(bound, math.ceil(quota)))


def limit_threads(count: int | None) -> None:
    """Decide how many threads compute, all processes of this command together.

    The libraries see by themselves to which cores the process is bound, but know nothing of quotas.

    Args:
        count: Value of ``--threads``; None: ``OMP_NUM_THREADS``, or else what the machine allows.

    Raises:
        ConfigError: ``count`` is not positive.
    """
    if count is not None and count < 1:
        raise ConfigError(f"--threads {count} must be from 1")
    if count is None and (_VARIABLE in os.environ or cpu_quota() is None):
        return
    threads = available_cores() if count is None else count
    os.environ[_VARIABLE] = str(threads)
    if torch := sys.modules.get("torch"):  # it is loaded already where calr is used from Python
        torch.set_num_threads(threads)


def busy() -> str | None:
    """One line if other programs need this machine's cores as well; None if not."""
    if not hasattr(os, "getloadavg"):
        return None
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load < _BUSY * cores + 1:  # this command may have begun to compute
        return None
    return f"this machine is busy: {load:.0f} programs want its {cores} core(s); everything takes longer"


def spin_briefly() -> None:
    """Have the threads of OpenMP sleep soon while they wait for each other; call it before torch is loaded.

    By default GNU's spin for milliseconds. On a machine with other load a thread that spins takes the core
    from the thread that it waits for, and small batches become several times slower (docs/performance.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
