"""A folder that this process cannot write, though the tests may run as root."""

from __future__ import annotations

import codecs
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from PIL import Image

NOBODY = 65534


@contextmanager
def read_only_root(fill: Callable[[Path], object]) -> Iterator[tuple[Path, Path]]:
    """Yield a read-only folder, that ``fill`` wrote, and a home that can be written."""
    parent = Path(mkdtemp())  # not pytest's: that one is closed to other users
    root, home = parent / "data", parent / "home"
    root.mkdir()
    home.mkdir()
    fill(root)
    for path in root.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    parent.chmod(0o755)
    root.chmod(0o555)
    home.chmod(0o777)
    for encoding in ("cp437", "utf-8-sig"):  # what is imported late may be closed to other users as well
        codecs.lookup(encoding)
    Image.init()
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield root, home
    finally:
        os.seteuid(user)
        root.chmod(0o755)
        shutil.rmtree(parent)
