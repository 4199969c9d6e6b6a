"""A folder that this process cannot write, though the tests may run as root."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

NOBODY = 65534


@contextmanager
def read_only_folder(fill: Callable[[Path], None]) -> Iterator[Path]:
    """Yield a folder that ``fill`` wrote and that is now read-only, but for ``home`` in it."""
    folder = Path(mkdtemp())  # not pytest's: that one is closed to other users
    fill(folder)
    (folder / "home").mkdir()
    (folder / "home").chmod(0o777)
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        os.seteuid(user)
        folder.chmod(0o755)
        shutil.rmtree(folder)
