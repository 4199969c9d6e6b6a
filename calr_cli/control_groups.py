"""What Linux's control groups, by which containers and batch systems share a machine, allow this process.

A process belongs to a group within groups, and the limit of each of them holds. In a container the mounted
tree often begins with the container's own group, so that the outer part of the path is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def memory_left() -> int | None:
    """Bytes that the groups of this process may still take; None: they set no limit."""
    left = []
    for folder in _groups("memory"):
        for limit, used in (
            ("memory.max", "memory.current"),  # version 2
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),  # version 1
        ):
            numbers = _numbers(folder / limit) + _numbers(folder / used)
            if len(numbers) == 2:
                left.append(max(numbers[0] - numbers[1], 0))
    return min(left, default=None)


def cpu_quota() -> float | None:
    """How many cores' time the groups of this process may take together; None: they set no limit."""
    quotas = []
    for folder in _groups("cpu"):
        both = _numbers(folder / "cpu.max")  # version 2: quota and period, in microseconds
        quota = _numbers(folder / "cpu.cfs_quota_us") + _numbers(folder / "cpu.cfs_period_us")  # version 1
        for numbers in (both, quota):
            if len(numbers) == 2 and min(numbers) > 0:  # a quota of -1 is none
                quotas.append(numbers[0] / numbers[1])
    return min(quotas, default=None)


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the groups of this process, and of those around them; some may not be there.

    Version 2 has one tree for all controllers, version 1 a tree for each.
    """
    try:
        lines = _MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:  # another system, or /proc is hidden
        lines = []
    paths = {_MOUNT: "/", _MOUNT / controller: "/"}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            paths[_MOUNT] = path
        elif controller in controllers.split(","):
            paths[_MOUNT / controller] = path
    for mount, path in paths.items():
        folder = mount
        yield folder
        for name in path.strip("/").split("/"):
            folder = folder / name
            yield folder


def _numbers(file: Path) -> list[int]:
    """The numbers in a file; none where there is no such file, or a word (``max``)."""
    try:
        return [int(word) for word in file.read_text(encoding="utf-8").split()]
    except (OSError, ValueError):
        return []
