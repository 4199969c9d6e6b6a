"""One command at a time trains in a run folder; its lock ends with it, however it ends."""

from __future__ import annotations

import os
import socket
from datetime import datetime
from pathlib import Path

from calr_cli.errors import CheckpointError
from calr_cli.events import Reporter

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_held: dict[Path, int] = {}


def hold(folder: Path, reporter: Reporter) -> None:
    """Keep other commands out of a run, or of all runs of ``calr train``, until `release_all`.

    The lock is the system's own on ``.lock`` in the folder of the run, a file that says who has it. A file
    that a killed command left behind keeps nobody out. A folder without runs is left as it is.

    Args:
        folder: Of a run, or that holds runs.
        reporter: Told if this file system knows no locks; then the run goes on without one.

    Raises:
        CheckpointError: Another command trains there.
    """
    configs = [folder / "config.yaml", *folder.glob("*/config.yaml"), *folder.glob("seed*/*/config.yaml")]
    for run in (config.parent for config in configs if config.is_file()):
        if run.resolve() not in _held:
            try:
                _held[run.resolve()] = _locked(run)
            except BlockingIOError:
                raise CheckpointError(
                    f"{run} is being trained by another command, {_holder(run)}",
                    "Wait until it has ended, or stop it first",
                ) from None
            except OSError as error:
                reporter.note(
                    f"{run} cannot be locked ({error.strerror}): see to it that no other command trains in it"
                )


def release_all() -> None:
    """Let others into the runs that this process holds."""
    while _held:
        run, handle = _held.popitem()
        (run / ".lock").unlink(missing_ok=True)
        os.close(handle)


def _locked(run: Path) -> int:
    """The open file that has the lock."""
    if fcntl is None:
        raise OSError(0, "this system has no flock")
    path = run / ".lock"
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_nlink:  # else its holder has just removed it, and another may be there
                now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()} since {now}\n".encode())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _holder(run: Path) -> str:
    try:
        return (run / ".lock").read_text(encoding="utf-8").strip() or "which has just begun"
    except OSError:
        return "which does not say who it is"
