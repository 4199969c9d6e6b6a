"""Whether a file that a command is to write may be written: asked before the work, the same for all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from calr_cli.errors import ConfigError
from calr_cli.files import is_written_through, require_writable

PAGES = (".html", ".htm")
"""What a page may be called."""


def check_output(flag: str, path: Path, suffixes: Sequence[str], inputs: Iterable[str | Path] = ()) -> None:
    """Raise unless ``path`` can be written without a loss.

    A file that is there is replaced if it is of the same kind, by its suffix, and none of ``inputs``,
    whatever name or link leads to it. Devices and pipes are written whatever they are called.

    Args:
        flag: That ``path`` was given by, for errors.
        path: To write.
        suffixes: Of this kind of file.
        inputs: What the command reads.

    Raises:
        ConfigError: It cannot be written, or something would be lost.
    """
    try:
        if path.is_dir():
            raise ConfigError(f"{flag} {path} is a folder", "Give the name of a file")
        for source in inputs:
            if _is_same(path, source):
                raise ConfigError(
                    f"{flag} {path} is what the command reads ({source}): it would be overwritten",
                    "Give another name",
                )
        if not is_written_through(path):
            # What a link leads to is what would be replaced.
            for named in dict.fromkeys((path, Path(os.path.realpath(path)))):
                if named.suffix.lower() not in suffixes:
                    link = "" if named == path else f", a link to {named}"
                    raise ConfigError(f"{flag} {path}{link}: the name must end in {', '.join(suffixes)}")
        require_writable(path)
    except OSError as error:
        raise ConfigError(f"{flag} {path} cannot be written: {error.strerror}") from None


def _is_same(path: Path, source: str | Path) -> bool:
    try:
        return path.samefile(source)
    except OSError:  # one of them is not there
        return False
