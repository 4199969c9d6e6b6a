"""Batches of pixels, which threads decode ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from calr_cli.data.images import read_pixels
from calr_cli.threads import available_cores
from calr_cli.types import ImageSet, IntArray

_BATCHES_AHEAD = 2

_GATHERING_THREADS = 4
"""At most; other cores are left to what computes."""

_PART = 1 << 20
"""Bytes of a part that is worth a thread: copying them takes longer than handing them over."""

UInt8Array = npt.NDArray[np.uint8]


class PixelSource(Protocol):
    """The pixels of N images of one size."""

    @property
    def height(self) -> int:
        """Pixels along this side of every image."""
        ...

    @property
    def width(self) -> int:
        """Pixels along this side of every image."""
        ...

    def __len__(self) -> int:
        """N, the number of images."""
        ...

    def batches(self, positions: Iterable[IntArray], *, pin: bool = False) -> Iterator[Tensor]:
        """The pixels of each batch of positions in turn, (B, height, width, 3) uint8 in host memory.

        Threads prepare a few batches ahead; they end when the iteration ends.

        Args:
            positions: Positions of the images of each batch.
            pin: Whether to use memory from which a GPU can copy while it computes.

        Raises:
            DataError: An image cannot be read; raised when its batch is due.
        """
        ...

    def subset(self, indices: IntArray) -> PixelSource:
        """The images at ``indices``, in that order."""
        ...


class ImageFiles:
    """Images that are decoded and resized each time they are used.

    Threads do the work, not processes: Pillow decodes and resizes outside the interpreter lock, and threads
    have nothing to pickle, copy or leave behind.

    Args:
        images: Images with the paths of their files.
        height: Height of the network input, in pixels.
        width: Width of the network input, in pixels.
        workers: Number of threads that decode.
    """

    def __init__(self, images: ImageSet, height: int, width: int, workers: int) -> None:
        self.images = images
        self.height = height
        self.width = width
        self.workers = workers

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, positions: Iterable[IntArray], *, pin: bool = False) -> Iterator[Tensor]:
        """See `PixelSource.batches`."""

        def fill(block: UInt8Array, batch: IntArray, pool: Executor) -> list[Future[None]]:
            return [pool.submit(self._read, int(i), row) for i, row in zip(batch, block, strict=True)]

        return _ahead(positions, fill, (self.height, self.width), self.workers, pin)

    def subset(self, indices: IntArray) -> ImageFiles:
        """See `PixelSource.subset`."""
        return ImageFiles(self.images.subset(indices), self.height, self.width, self.workers)

    def _read(self, position: int, out: UInt8Array) -> None:
        out[:] = read_pixels(self.images.root / self.images.paths[position], self.height, self.width)


class StoredPixels:
    """Decoded and resized images in memory, or in a file that is mapped into memory.

    Args:
        pixels: (M, height, width, 3) uint8; read only.
        rows: (N,) rows of ``pixels`` that belong to the N images; None: all rows.
    """

    def __init__(self, pixels: UInt8Array, rows: IntArray | None = None) -> None:
        self._pixels = pixels
        self._rows = np.arange(len(pixels)) if rows is None else rows
        self.height, self.width = pixels.shape[1:3]

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, positions: Iterable[IntArray], *, pin: bool = False) -> Iterator[Tensor]:
        """See `PixelSource.batches`."""
        threads = min(available_cores(), _GATHERING_THREADS)

        def fill(block: UInt8Array, batch: IntArray, pool: Executor) -> list[Future[Any]]:
            rows = self._rows[batch]
            parts = max(1, min(threads, block.nbytes // _PART))
            cuts = [len(batch) * part // parts for part in range(parts + 1)]
            return [
                # NumPy would go through a copy of the block in any other mode; no row is out of range.
                pool.submit(np.take, self._pixels, rows[start:stop], 0, block[start:stop], mode="clip")
                for start, stop in pairwise(cuts)
            ]

        return _ahead(positions, fill, (self.height, self.width), threads, pin)

    def subset(self, indices: IntArray) -> StoredPixels:
        """See `PixelSource.subset`; the pixels are shared."""
        return StoredPixels(self._pixels, self._rows[indices])


def _ahead(
    positions: Iterable[IntArray],
    fill: Callable[[UInt8Array, IntArray, Executor], list[Future[Any]]],
    size: tuple[int, int],
    threads: int,
    pin: bool,
) -> Iterator[Tensor]:
    with ThreadPoolExecutor(max(1, threads), thread_name_prefix="pixels") as pool:
        pending: deque[tuple[Tensor, list[Future[Any]]]] = deque()
        remaining = iter(positions)
        try:
            while True:
                while len(pending) <= _BATCHES_AHEAD and (batch := next(remaining, None)) is not None:
                    block = torch.empty((len(batch), *size, 3), dtype=torch.uint8, pin_memory=pin)
                    pending.append((block, fill(block.numpy(), batch, pool)))
                if not pending:
                    return
                block, filled = pending.popleft()
                for future in filled:
                    future.result()
                yield block
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
