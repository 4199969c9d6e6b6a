"""Memory: how much is free, what does not fit, and how the C library keeps freed blocks."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from calr_cli.control_groups import memory_left
from calr_cli.errors import MemoryLimitError

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def available_memory() -> int:
    """Bytes that this process can take now: the machine's free memory, within the container's limit."""
    free, left = int(psutil.virtual_memory().available), memory_left()
    return free if left is None else min(free, left)


def gigabytes(size: float) -> str:
    """A number of bytes as people read it: ``1.3 GB``."""
    return f"{size / 1e9:.1f} GB" if size >= 5e7 else f"{size / 1e6:.1f} MB"


def require_memory(needed: int, limit: int | None, what: str, remedy: str) -> None:
    """Raise if ``needed`` bytes exceed ``limit`` (None: no limit).

    Raises:
        MemoryLimitError: ``needed`` is above ``limit``.
    """
    if limit is not None and needed > limit:
        raise MemoryLimitError(
            f"{what} would take {gigabytes(needed)}, and {gigabytes(limit)} may be used", remedy
        )


def is_gpu_full(error: BaseException) -> bool:
    """Whether ``error`` is what torch, a library of CUDA or FAISS raises when a GPU has no memory left."""
    return isinstance(error, RuntimeError) and bool(
        re.search("out of memory|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED", str(error))
    )


@contextmanager
def named_when_full(device: object, remedy: str) -> Iterator[None]:
    """A context in which a GPU without memory left becomes one line with its name.

    Raises:
        MemoryLimitError: ``device`` is full.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_gpu_full(error):
            raise
        raise MemoryLimitError(f"the memory of {device} is full", remedy) from None


def keep_freed_memory() -> None:
    """Let glibc keep the large blocks that torch frees between batches; other C libraries are not changed.

    By default glibc returns every block of more than 32 MiB back at once, and every batch pays for a
    page fault per 4 KiB: on small machines and virtual ones that is most of the time of a step.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
