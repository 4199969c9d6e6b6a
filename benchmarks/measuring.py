"""What the benchmarks share: made-up features, and one step's seconds and peak memory in a fresh process."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calr_cli.allocation import keep_freed_memory


@dataclass(frozen=True)
class Size:
    """Images and identities of a dataset's splits, and its cameras."""

    train: int
    train_ids: int
    query: int
    gallery: int
    test_ids: int
    cameras: int


SIZES = {
    "tiny": Size(300, 20, 40, 300, 20, 3),
    "small": Size(2_000, 150, 500, 2_000, 150, 6),
    "market": Size(12_936, 751, 3_368, 15_913, 750, 6),
    "msmt17": Size(32_621, 1_041, 11_659, 82_161, 3_060, 15),
    "big": Size(100_000, 4_000, 2_000, 200_000, 4_000, 20),
}


@dataclass(frozen=True)
class MadeUp:
    """Features (N, D), identities and cameras."""

    features: np.ndarray
    pids: np.ndarray
    camids: np.ndarray


def made_up(count: int, ids: int, cameras: int, dim: int, seed: int, rank: int = 48) -> MadeUp:
    """Unit rows of identity + camera + noise in a space of ``rank`` dimensions, turned into ``dim``."""
    rng = np.random.default_rng(seed)
    pids, camids = rng.integers(ids, size=count), rng.integers(cameras, size=count)
    world = np.random.default_rng(0)  # identities, cameras and the turn are the same for every split
    identity = world.normal(size=(max(ids, 4_000), rank))
    camera = world.normal(size=(64, rank))
    turn = np.linalg.qr(world.normal(size=(dim, min(rank, dim))))[0].T
    latent = identity[pids] + 0.7 * camera[camids] + 0.9 * rng.normal(size=(count, rank))
    features = (latent[:, : len(turn)] @ turn).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return MadeUp(features, pids, camids)


@dataclass(frozen=True)
class Measured:
    """What a step returned, how long it took and by how much the process grew at its largest."""

    value: Any
    seconds: float
    peak_bytes: int


def measured(step: Callable[..., Any], *arguments: Any, threads: int | None = None) -> Measured:
    """Run ``step(*arguments)`` in a fresh process; its inputs are not counted in its memory.

    ``step`` is called twice: ``prepare = step(*arguments)`` makes the inputs and returns the function of no
    argument that is measured.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, step, arguments, threads))
    process.start()
    sender.close()
    try:
        value, seconds, peak = receiver.recv()
    except EOFError:
        raise SystemExit(f"{step.__name__}{arguments} died: out of memory?") from None
    process.join()
    return Measured(value, seconds, peak)


def fastest(step: Callable[[], Any], repeat: int) -> float:
    """Process time of the fastest of ``repeat`` calls: what else the machine does counts least there."""
    seconds = []
    for _ in range(repeat):
        began = time.process_time()
        step()
        seconds.append(time.process_time() - began)
    return min(seconds)


def in_turns(step: Callable[..., Any], ways: Iterable[str], *arguments: Any, rounds: int) -> dict[str, float]:
    """Way -> the least value of ``step(way, *arguments)`` on one thread; the ways take turns."""
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, values in found.items():
            values.append(measured(step, way, *arguments, threads=1).value)
    return {way: min(values) for way, values in found.items()}


def _child(sender: Any, step: Callable[..., Any], arguments: tuple[Any, ...], threads: int | None) -> None:
    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    run = step(*arguments)
    _return_freed_memory()
    with _PeakMemory() as memory:
        began = time.perf_counter()
        value = run()
        seconds = time.perf_counter() - began
    sender.send((value, seconds, memory.peak))
    sender.close()
    os._exit(0)  # without waiting for libraries to clean up after themselves


def _return_freed_memory() -> None:
    """Give back what making the inputs has freed: the step would use it without growing the process."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


class _PeakMemory:
    """Samples the resident memory of this process; ``peak`` is its largest growth in bytes."""

    def __enter__(self) -> _PeakMemory:
        self.start, self.peak, self.done = _resident(), 0, threading.Event()
        self.thread = threading.Thread(target=self._sample)
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.done.set()
        self.thread.join()

    def _sample(self) -> None:
        while not self.done.wait(0.005):
            self.peak = max(self.peak, _resident() - self.start)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def machine() -> str:
    """The processor, its cores and the versions that decide."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = names[0].split(":")[1].strip() if names else platform.processor()
    return f"{os.cpu_count()} cores of {model}; torch {torch.__version__}, numpy {np.__version__}"


def table(title: str, rows: list[dict[str, Any]], columns: list[str]) -> str:
    """A Markdown table."""
    lines = [
        f"{title}",
        "",
        "| " + " | ".join(columns) + " |",
        "| " + " | ".join("---" for _ in columns) + " |",
    ]
    lines += ["| " + " | ".join(_cell(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write_json(path: Path | None, content: Any) -> None:
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), **content}, indent=1) + "\n")
