"""Images some of which may be damaged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from calr_cli.data.loaders import ImageFiles, UInt8Array
from calr_cli.errors import DataError
from calr_cli.types import UNKNOWN_PID, ImageSet


class ReadableImages(ImageFiles):
    """Image files, those that cannot be read being black.

    Args:
        paths: Of the N images.
        height: Of the network input.
        width: Of the network input.
        workers: Threads that decode.

    Attributes:
        problems: Position -> why it cannot be read, of those that were asked for.
    """

    def __init__(self, paths: Sequence[str], height: int, width: int, workers: int) -> None:
        count = len(paths)
        images = ImageSet(
            Path(),
            tuple(paths),
            pids=np.full(count, UNKNOWN_PID),
            camids=np.zeros(count, np.int64),
            digests=("",) * count,
        )
        super().__init__(images, height, width, workers)
        self.problems: dict[int, str] = {}

    def _read(self, position: int, out: UInt8Array) -> None:
        try:
            super()._read(position, out)
        except DataError as error:
            out[:] = 0
            self.problems[position] = error.problems[0]
