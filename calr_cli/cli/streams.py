"""Standard streams that the caller has closed, as with ``>&-``."""

from __future__ import annotations

import os
import sys


def open_closed_streams() -> None:
    """Let what is written to a closed stream go nowhere; else it would go into the next file that is opened.

    Python has None for such a stream, and the number of its descriptor is free to be taken.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
