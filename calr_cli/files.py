"""The folder for state between commands, and files that are written whole or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


def calr_home() -> Path:
    """``$CALR_HOME``, or else ``calr`` in the user's cache folder; this function does not create it."""
    if home := os.environ.get("CALR_HOME"):
        return Path(home).expanduser()
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "calr"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "calr"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` that becomes ``path`` if the block ends well.

    If the block raises, ``path`` stays as it was and no temporary file remains. Missing parent folders are
    made. A link is followed: the file that it points to is replaced. A device or a named pipe, such as
    ``/dev/null``, is not replaced but gets the content.

    Raises:
        OSError: The folder cannot be written or the disk is full.
    """
    through = is_written_through(path)
    target = Path(os.path.realpath(path))
    parent = Path(tempfile.gettempdir()) if through else target.parent
    prefix = f".{target.name[:48]}."  # a name of full length has no room for more
    temporary = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=parent, prefix=prefix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        if through:
            with temporary.open("rb") as content, path.open("ab") as out:
                shutil.copyfileobj(content, out)
            temporary.unlink()
        else:
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            # The system does not say whose write a full disk failed, and nobody knows the temporary name.
            named = None if error.filename is None else Path(os.fsdecode(error.filename)).name
            if named is None or named.startswith(prefix):
                error.filename = str(path)
            if error.errno in (errno.ENOSPC, errno.EDQUOT) and not through:
                free = shutil.disk_usage(parent).free / 1e6
                error.strerror = f"the disk or your share of it is full, {free:,.1f} MB free: make room there"
                error.args = (error.errno, error.strerror)  # what goes to another process
        raise


def is_written_through(path: Path) -> bool:
    """Whether ``path`` is there and cannot be replaced: a device, a pipe, or what this program has open.

    Raises:
        OSError: The system does not say, as of links in a circle.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.S_ISREG(found.st_mode):  # /dev/stdout is one where the shell redirects it
        return any(os.path.samestat(found, os.fstat(handle)) for handle in (1, 2) if _is_open(handle))
    return not stat.S_ISDIR(found.st_mode)


def require_writable(path: Path) -> None:
    """Raise unless ``path``, with the folders that it needs, can be made or replaced.

    Raises:
        OSError: It cannot; nothing is left behind.
    """
    if is_written_through(path):
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return
    target = Path(os.path.realpath(path))
    folder = next(folder for folder in target.parents if os.path.lexists(folder))
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)} (in {folder})", str(path)) from None


def strict_json(
    content: Any, indent: int | None = None, default: Callable[[Any], object] | None = None
) -> str:
    """JSON that every program reads: ``null`` in place of a number that is none; else as ``json.dumps``."""
    return json.dumps(_finite(content), indent=indent, default=default, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


@contextmanager
def one_at_a_time(target: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Make other processes and threads that want to write ``target`` wait.

    The lock is an empty hidden file beside ``target``, `lock_of`. It stays, because waiting processes have it
    open.

    Args:
        target: A file or folder; missing parent folders are made.
        waiting: A function to call once if another process or thread has the lock.

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
    """The path of the lock of `one_at_a_time`."""
    return target.with_name(f".{target.name}.lock")


def _is_open(handle: int) -> bool:
    try:
        os.fstat(handle)
    except OSError:
        return False
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
