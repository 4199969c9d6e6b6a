"""Batches of pixels, decoded by threads ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from calr_cli.data.images import read_pixels
from calr_cli.types import ImageSet, IntArray

_BATCHES_AHEAD = 2


def pixel_batches(
    images: ImageSet, batches: Sequence[IntArray], *, height: int, width: int, workers: int
) -> Iterator[Tensor]:
    """The pixels of each batch in turn, (B, 3, height, width) uint8 in host memory.

    Threads, not processes: Pillow decodes and resizes outside the interpreter lock, and threads have
    nothing to pickle, copy or leave behind.

    Args:
        images: Where the files are.
        batches: Positions in ``images`` per batch.
        height: Of the network input.
        width: Of the network input.
        workers: Threads that decode.

    Raises:
        DataError: An image that cannot be read, when its batch is due.
    """

    def read(position: int) -> np.ndarray:
        return read_pixels(images.root / images.paths[position], height, width)

    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="decode") as pool:
        pending: deque[list[Future[np.ndarray]]] = deque()
        remaining = iter(batches)
        try:
            while True:
                while len(pending) <= _BATCHES_AHEAD and (batch := next(remaining, None)) is not None:
                    pending.append([pool.submit(read, int(position)) for position in batch])
                if not pending:
                    return
                yield torch.from_numpy(np.stack([future.result() for future in pending.popleft()]))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
