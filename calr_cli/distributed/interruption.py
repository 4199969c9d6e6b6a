"""Delays Ctrl-C until the current step has ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Whether somebody wants the work to end.

    Attributes:
        requested: Set by the first signal.
    """

    requested = False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def deferred_interrupt() -> Iterator[Interruption]:
    """Inside, the first SIGINT or SIGTERM only sets ``requested``; the second one interrupts at once.

    Python lets only the main thread handle signals: in others nothing changes.

    Raises:
        KeyboardInterrupt: At the end, if a signal came that the body has not seen to by an exception.
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
