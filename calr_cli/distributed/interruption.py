"""Delays Ctrl-C until the current step has ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """A request to end the work.

    Attributes:
        requested: Whether a signal has come.
    """

    requested = False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def deferred_interrupt() -> Iterator[Interruption]:
    """A context in which the first SIGINT or SIGTERM only sets ``requested``; the second interrupts at once.

    Python lets only the main thread handle signals; in other threads nothing changes.

    Raises:
        KeyboardInterrupt: A signal came, and the body ended without an exception.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.signal(number, interruption._hear) for number in SIGNALS}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if interruption.requested:
        raise KeyboardInterrupt
