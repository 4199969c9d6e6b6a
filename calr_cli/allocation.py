"""Keeping freed memory, so that the next batch does not ask the kernel for it again."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> None:
    """Let glibc keep the large blocks that torch frees between batches; elsewhere nothing happens.

    By default glibc hands every block of more than 32 MiB back at once, and every batch pays for a
    page fault per 4 KiB: on small machines and virtual ones that is most of the time of a step.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
