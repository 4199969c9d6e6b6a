"""Communication between the processes of a run; with one process, every call is the identity.

Tensors of a step use the default group, with NCCL between GPUs and gloo between CPUs. Objects and arrays of
the host use a separate gloo group with a long time-out, because rank 0 may need hours for labels.
"""

from __future__ import annotations

import atexit
import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from calr_cli.distributed.meeting import meet
from calr_cli.distributed.place import REMEDY, is_number, told_place
from calr_cli.errors import ConfigError, WorkerError
from calr_cli.events import Reporter, SilentReporter

T = TypeVar("T")
Scalar = TypeVar("Scalar", bound=np.generic)

STEP_TIMEOUT = timedelta(minutes=30)
"""Longest time for which a process may keep the other processes waiting within a step."""

HOST_TIMEOUT = timedelta(hours=24)
"""Longest time that rank 0 may take while the other ranks wait."""

BACKEND = "cpu:gloo,cuda:nccl"
"""How tensors travel where there are GPUs; NCCL takes one process for each."""

ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""The environment variables that torchrun sets for a process."""

_host: dist.ProcessGroup | None = None
_is_alone = False


def rank() -> int:
    """The number of this process among all processes."""
    return dist.get_rank() if _joined() and not _is_alone else 0


def world_size() -> int:
    """The number of processes that work together."""
    return dist.get_world_size() if _joined() and not _is_alone else 1


def is_main() -> bool:
    """Whether this is rank 0, which makes labels and writes the run folder."""
    return rank() == 0


def join(timeout: timedelta = STEP_TIMEOUT, reporter: Reporter | None = None) -> None:
    """Connect to the other processes, if the environment names any; further calls do nothing.

    Args:
        timeout: How long a process may keep the others waiting within a step.
        reporter: Warned if some are late; None: nobody is.

    Raises:
        ConfigError: The environment names other processes but not their address.
        WorkerError: The other processes cannot be reached.
    """
    global _host
    place = told_place()
    if _joined() or place is None or place.world_size == 1:
        return
    unset = [name for name in ENVIRONMENT if name not in os.environ]
    if unset:
        raise ConfigError(
            f"WORLD_SIZE is {place.world_size}, and {', '.join(unset)} not set in the environment", REMEDY
        )
    backend = BACKEND if torch.cuda.is_available() else "gloo"
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    if not (is_number(port) and int(port) < 2**16):
        raise ConfigError(f"MASTER_PORT is {port!r} in the environment, not the number of a port", REMEDY)
    try:
        store = meet(place, address, int(port), reporter or SilentReporter())
        store.set_timeout(timeout)
        dist.init_process_group(
            backend, store=store, rank=place.rank, world_size=place.world_size, timeout=timeout
        )
        _host = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=HOST_TIMEOUT))
    except RuntimeError as error:
        raise WorkerError(
            f"process {place.rank} cannot join the others at {address}:{port}: {str(error).splitlines()[0]}"
        ) from None
    atexit.register(leave)


def leave() -> None:
    """Disconnect from the other processes, after all communication has ended."""
    global _host
    if _joined():
        dist.destroy_process_group()
    _host = None


@contextmanager
def alone() -> Iterator[None]:
    """A context in which this process is rank 0 of 1, for work of which each rank does whole parts."""
    global _is_alone
    before, _is_alone = _is_alone, True
    try:
        yield
    finally:
        _is_alone = before


def broadcast(value: T) -> T:
    """The ``value`` of rank 0 on every rank; it has to be picklable, and other ranks' values are ignored."""
    if world_size() == 1:
        return value
    payload = _packed(value) if is_main() else torch.empty(0, dtype=torch.uint8)
    size = torch.tensor([len(payload)])
    _finish(dist.broadcast(size, 0, group=_host, async_op=True))
    if not is_main():
        payload = torch.empty(int(size), dtype=torch.uint8)
    _finish(dist.broadcast(payload, 0, group=_host, async_op=True))
    return value if is_main() else cast(T, _unpacked(payload))


def made_by_main(make: Callable[[], T]) -> T:
    """The result of ``make`` on rank 0, on every rank; other ranks do not call it."""
    return broadcast(make() if is_main() else cast(T, None))


def gather(value: T) -> list[T]:
    """The values of all ranks, in the order of ranks, on every rank; they have to be picklable."""
    if world_size() == 1:
        return [value]
    payload = _packed(value)[:, None]
    sizes = _host_counts(len(payload))
    packed = _gathered(payload, sizes, _host).squeeze(1)
    return [_unpacked(part) for part in packed.split(sizes)]


def barrier() -> None:
    """Wait until every rank has reached this call."""
    gather(None)


def collect_rows(rows: npt.NDArray[Scalar], counts: Sequence[int]) -> npt.NDArray[Scalar]:
    """The rows of all ranks on every rank, in host memory.

    Args:
        rows: (n_r, D) rows of this rank.
        counts: Number of rows n of every rank.

    Returns:
        (sum of n_r, D), in the order of ranks.
    """
    if world_size() == 1:
        return rows
    return cast("npt.NDArray[Scalar]", _gathered(torch.from_numpy(rows), counts, _host).numpy())


def gather_rows(rows: Tensor, counts: Sequence[int] | None = None) -> Tensor:
    """The rows of all ranks on every rank, on their own device; no gradient flows back.

    Args:
        rows: (n_r, D) rows of this rank.
        counts: Number of rows n of every rank; without it, the ranks exchange it, and the host waits.

    Returns:
        (sum of n_r, D), in the order of ranks.
    """
    if world_size() == 1:
        return rows.detach()
    return _gathered(rows.detach(), _host_counts(len(rows)) if counts is None else counts)


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """``tensor``, replaced in place by its sum over ranks."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def copy_from_main(tensor: Tensor) -> Tensor:
    """``tensor``, replaced in place by that of rank 0."""
    if world_size() > 1:
        dist.broadcast(tensor, 0)
    return tensor


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def _gathered(rows: Tensor, counts: Sequence[int], group: dist.ProcessGroup | None = None) -> Tensor:
    """Gather rows as bytes, which every backend supports; each rank sends as many as the largest."""
    most, width = max(counts), rows.shape[1]
    if most == 0 or width == 0:
        return rows.new_empty((sum(counts), width))
    padded = rows.new_zeros((most, width))
    padded[: len(rows)] = rows
    everything = rows.new_empty((len(counts) * most, width))
    received, sent = everything.view(torch.uint8), padded.view(torch.uint8)
    if group is None:
        dist.all_gather_into_tensor(received, sent)
    else:
        _finish(dist.all_gather_into_tensor(received, sent, group=group, async_op=True))
    parts = everything.split(most)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def _host_counts(count: int) -> list[int]:
    ones = [1] * world_size()
    return cast("list[int]", _gathered(torch.tensor([[count]]), ones, _host).squeeze(1).tolist())


def _finish(work: dist.Work | None) -> None:
    """Wait in Python, so that signals arrive; torch's own wait blocks them, possibly for hours."""
    assert work is not None  # that is for ranks outside of the group
    pause = 1e-4
    while not work.is_completed():
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    work.wait()


def _packed(value: Any) -> Tensor:
    return torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)


def _unpacked(payload: Tensor) -> Any:
    return pickle.loads(payload.numpy().tobytes())
