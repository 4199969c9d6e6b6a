"""Where state lives between commands, and how it is written: whole or not at all, by one at a time."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


def calr_home() -> Path:
    """``$CALR_HOME``, else ``calr`` in the user's cache folder. Not created here."""
    if home := os.environ.get("CALR_HOME"):
        return Path(home).expanduser()
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "calr"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "calr"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` that becomes ``path`` if the block ends well.

    A block that raises leaves ``path`` as it was and no temporary file behind. Missing parent
    folders are made.

    Raises:
        OSError: The folder cannot be written or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)  # the system does not say whose write a full disk failed
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                free = shutil.disk_usage(path.parent).free / 1e6
                error.strerror = f"the disk or your share of it is full, {free:,.1f} MB free: make room there"
                error.args = (error.errno, error.strerror)  # what goes to another process
        raise


@contextmanager
def one_at_a_time(target: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Keep other processes, and threads, that would write ``target`` waiting.

    The lock is an empty hidden file beside ``target``, `lock_of`. It stays: whoever waits for it has it open.

    Args:
        target: A file or folder; missing parent folders are made.
        waiting: Called once if another has the lock.

    Raises:
        OSError: The folder cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_of(target))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def lock_of(target: Path) -> Path:
    """Where `one_at_a_time` keeps its lock."""
    return target.with_name(f".{target.name}.lock")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
