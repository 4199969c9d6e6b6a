"""A store of decoded images, on disk or in memory, made once for all epochs and processes."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar, cast

import numpy as np
import PIL

from calr_cli.allocation import available_memory, gigabytes
from calr_cli.data.images import content_digest
from calr_cli.data.loaders import ImageFiles, PixelSource, StoredPixels, UInt8Array
from calr_cli.distributed import collectives
from calr_cli.errors import DataError
from calr_cli.events import Reporter, SilentReporter
from calr_cli.files import atomic_write, calr_home
from calr_cli.types import ImageSet

T = TypeVar("T")

_FORMAT = 2  # of what images become: another for every change in how they are decoded
_SMALL = 10_000_000  # bytes that are decoded before anybody wonders
_SHARE_OF_MEMORY = 0.75  # the rest is for the work itself
_IMAGES_AT_A_TIME = 64
_ABANDONED_SECONDS = 3600


def open_pixels(
    images: ImageSet,
    *,
    height: int,
    width: int,
    workers: int,
    cache: Literal["disk", "ram", "off"],
    reporter: Reporter,
) -> PixelSource:
    """The pixels of ``images``, from a store of decoded images if possible.

    All processes call this function at the same time; one process on each machine decodes, and all share the
    store. The content of the images determines the name of a store on disk, so a later run finds it. If a
    store does not fit, the function warns, and images are decoded each time they are used.

    Args:
        images: N images.
        height: Height of the network input, in pixels.
        width: Width of the network input, in pixels.
        workers: Number of threads that decode.
        cache: Place for the N x height x width x 3 bytes.
        reporter: Receiver of the size and of a progress in images, unless there are few images.

    Raises:
        DataError: An image cannot be read, or is not the one that was prepared.
    """
    files = ImageFiles(images, height, width, workers)
    if cache == "off" or not len(images):
        return files
    if _size(files) < _SMALL:
        reporter = SilentReporter()
    if cache == "ram" and not hasattr(os, "memfd_create"):
        reporter.note("data.cache: this system has no files in memory, the decoded images go to disk")
        cache = "disk"
    pixels = _on_disk(files, reporter) if cache == "disk" else _in_memory(files, reporter)
    return files if pixels is None else StoredPixels(pixels)


def _on_disk(files: ImageFiles, reporter: Reporter) -> UInt8Array | None:
    path = calr_home() / "pixels" / f"{_content_key(files)}.bin"

    def make() -> bool:
        try:
            if os.access(path, os.R_OK) and path.stat().st_size == _size(files):
                return True
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path)
            free = shutil.disk_usage(path.parent).free
            if free < _size(files):
                _warn(files, f"{path.parent}, {gigabytes(free)} free", reporter)
                return False
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                _decode(files, file, str(path.parent), reporter)
                os.fsync(file.fileno())  # a power cut must not leave a file of the right size and no content
        except OSError as error:
            _warn(files, f"{path.parent}, {error.strerror or error}", reporter)
            return False
        return True

    return _mapped(path, files) if _by_first_process(make) else None


def _in_memory(files: ImageFiles, reporter: Reporter) -> UInt8Array | None:
    """Pixels in a file without a name, which disappears with the last process that has it open."""
    with ExitStack() as until_all_have_it:

        def make() -> Path | None:
            free = available_memory()
            if free * _SHARE_OF_MEMORY < _size(files):
                _warn(files, f"memory, {gigabytes(free)} free", reporter)
                return None
            handle = os.memfd_create("calr-pixels")
            until_all_have_it.callback(os.close, handle)
            try:
                with os.fdopen(handle, "wb", closefd=False) as file:
                    _decode(files, file, "memory", reporter)
            except OSError as error:
                _warn(files, f"memory, {error.strerror or error}", reporter)
                return None
            return Path(f"/proc/{os.getpid()}/fd/{handle}")

        place = _by_first_process(make)
        pixels = None if place is None else _mapped(place, files)
        collectives.barrier()
    return pixels


def _decode(files: ImageFiles, file: BinaryIO, place: str, reporter: Reporter) -> None:
    count = len(files)
    reporter.note(f"decoding {count:,} images once: {gigabytes(_size(files))} in {place}")
    batches = [
        np.arange(first, min(first + _IMAGES_AT_A_TIME, count))
        for first in range(0, count, _IMAGES_AT_A_TIME)
    ]
    with reporter.progress("decoding", count, "images") as progress:
        for batch, block in zip(batches, files.batches(batches), strict=True):
            for position in batch:
                _require_unchanged(files.images, int(position))
            file.write(block.numpy().data)
            progress.advance(len(block))
    file.flush()


def _require_unchanged(images: ImageSet, position: int) -> None:
    """Raise unless the images still have the digests with which they were prepared."""
    path = images.root / images.paths[position]
    if content_digest(path.read_bytes()) != images.digests[position]:
        raise DataError(
            f"{path}: the image has changed since it was prepared", "Run `calr prepare-data` again"
        )


def _warn(files: ImageFiles, why: str, reporter: Reporter) -> None:
    reporter.warning(
        f"the decoded images need {gigabytes(_size(files))}, which cannot be kept ({why}): every image is "
        "decoded each time. Free some space, set CALR_HOME to another folder, or choose another data.cache"
    )


def _by_first_process(make: Callable[[], T]) -> T:
    """What the first process of this machine makes; the others wait for it."""
    machines = collectives.gather((os.environ.get("GROUP_RANK"), socket.gethostname()))
    first = machines.index(machines[collectives.rank()])
    return cast(T, collectives.gather(make() if collectives.rank() == first else None)[first])


def _mapped(path: Path, files: ImageFiles) -> UInt8Array:
    shape = (len(files), files.height, files.width, 3)
    return np.asarray(np.memmap(path, np.uint8, "r", shape=shape))


def _remove_abandoned(path: Path) -> None:
    """Remove files that a killed run left half-written; a run at work touches its files all the time."""
    for half in path.parent.glob(f".{path.name}.*"):
        if half.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
            half.unlink(missing_ok=True)


def _size(files: ImageFiles) -> int:
    return len(files) * files.height * files.width * 3


def _content_key(files: ImageFiles) -> str:
    made_by = f"{_FORMAT} Pillow {PIL.__version__} {files.height} {files.width}"
    return sha256("\n".join([made_by, *files.images.digests]).encode()).hexdigest()[:32]
