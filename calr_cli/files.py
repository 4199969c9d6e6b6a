"""Where state lives between commands, and how a file is written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
