"""Decides on which devices a command works, with one process for each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psutil
import torch

from calr_cli.distributed.place import Place, is_number, told_place
from calr_cli.errors import ConfigError
from calr_cli.events import Reporter
from calr_cli.threads import busy


def choose_devices(
    gpus: str | None, device: str | None, processes: int | None, reporter: Reporter
) -> list[torch.device]:
    """The devices of this machine that the flags name, or the best available; one process for each.

    Under a launcher, process ``LOCAL_RANK`` takes the device at that place of the list. A launcher that shows
    each process one GPU of its own (``srun --gpus-per-task=1``) makes that GPU the first of every process.

    Args:
        gpus: Numbers of CUDA devices, separated by commas.
        device: ``cpu`` or ``cuda``.
        processes: Number of processes that share the CPU, for tests.
        reporter: Receiver of a note if there is no GPU and the CPU is used, or if the machine is busy.

    Raises:
        ConfigError: ``gpus`` is no such list, a device does not exist, flags contradict each other, or the
            number of devices does not fit the processes that a launcher started.
    """
    place = told_place()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = (
        f"CUDA devices here: {', '.join(map(str, range(count)))}" if count else "there is no CUDA device here"
    )
    if processes is not None and (gpus is not None or device != "cpu"):
        raise ConfigError(
            "--processes is for the CPU, several GPUs are --gpus 0,1", "Write --device cpu --processes 2"
        )
    if processes is not None and processes < 1:
        raise ConfigError(f"--processes {processes} must be from 1")
    if gpus is not None and device == "cpu":
        raise ConfigError("--gpus and --device cpu contradict each other", "Give one of them")
    if device not in (None, "cpu", "cuda"):
        raise ConfigError(f"--device {device!r} is not known", "Choose cpu or cuda")
    if device == "cuda" and not count:
        raise ConfigError(f"--device cuda: {there}", "Leave --device out to use the CPU")

    here = 1 if place is None else place.here or place.local_rank + 1
    if gpus is not None:
        chosen = [torch.device("cuda", number) for number in _numbers(gpus, count, there)]
    elif device == "cpu" or not count:
        if device is None:
            reporter.note(f"no CUDA device: using the CPU ({torch.get_num_threads()} threads)")
        chosen = [torch.device("cpu")] * (processes or here)
    else:
        chosen = [torch.device("cuda", number) for number in range(min(here, count))]
    if note := busy():
        reporter.note(note)
    if place is None:
        return chosen
    if len(chosen) == 1 and chosen[0].type == "cuda" and _sees_only_its_own():
        chosen *= here
    _require_one_each(chosen, place, there)
    return chosen


def named_device(name: str | torch.device) -> torch.device:
    """The device that torch knows by ``name``: ``cpu``, ``cuda``, ``cuda:1``, ...

    Raises:
        ConfigError: There is none.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        device = torch.device(name)
        if device.type == "cuda" and (device.index or 0) >= count:
            there = ", ".join(f"cuda:{number}" for number in range(count)) or "none"
            raise ConfigError(f"device {str(name)!r} is not there; CUDA devices here: {there}", "Or take cpu")
        if device.type == "meta":
            raise RuntimeError
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, TypeError):
        raise ConfigError(f"device {str(name)!r} is not known here", "Choose cpu, cuda or cuda:1") from None
    return device


@contextmanager
def working_on(device: torch.device) -> Iterator[None]:
    """A context in which ``device``, if it is a GPU, is the one that libraries take where none is named."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        yield


def num_processes(devices: Sequence[torch.device]) -> int:
    """The number of processes that work together on all machines."""
    place = told_place()
    return len(devices) if place is None else place.world_size


def gpu_identity(device: torch.device) -> str:
    """What tells a GPU from the others of its machine, however many of them a process sees."""
    return str(torch.cuda.get_device_properties(device).uuid)


def describe_device(device: torch.device) -> dict[str, Any]:
    """Name and memory of a device, for the record."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name, size = properties.name, properties.total_memory
    else:
        name, size = "cpu", psutil.virtual_memory().total
    return {"device": str(device), "name": name, "memory_gb": round(size / 1e9, 1)}


def make_deterministic() -> None:
    """Make torch use algorithms that give the same bits every time, at the cost of speed.

    Call this in every process before it uses CUDA.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def _sees_only_its_own() -> bool:
    """Whether the launcher shows this process a single GPU, as far as can be told without the others."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return torch.cuda.device_count() == 1 and visible != "" and "," not in visible


def _require_one_each(chosen: list[torch.device], place: Place, there: str) -> None:
    """Raise if not every process of this machine has its device among ``chosen``."""
    if place.here is None and place.local_rank >= len(chosen):
        raise ConfigError(
            f"process {place.local_rank} of this machine is to work on one of {len(chosen)} devices; {there}",
            f"Start {len(chosen)} processes here, or give --gpus one for each",
        )
    if place.here is not None and place.here != len(chosen):
        raise ConfigError(
            f"torchrun started {place.here} processes on this machine for {len(chosen)} devices; {there}",
            f"Give torchrun --nproc-per-node {len(chosen)}",
        )


def _numbers(gpus: str, count: int, there: str) -> list[int]:
    parts = [part.strip() for part in gpus.split(",")]
    numbers = [int(part) for part in parts if is_number(part)]
    if len(set(numbers)) < len(parts):  # 1 and 01 are the same device
        raise ConfigError(
            f"--gpus {gpus!r} is not a list of different device numbers", "Write for instance --gpus 0"
        )
    if missing := [str(number) for number in numbers if number >= count]:
        raise ConfigError(
            f"--gpus {gpus}: no device {', '.join(missing)}; {there}",
            "Leave --gpus out to use the CPU" if not count else "Choose among these",
        )
    return numbers
