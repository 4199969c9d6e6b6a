"""Features of images, kept by the content of the images: what was computed once is not computed again.

Below ``$CALR_HOME/galleries`` each model has a folder for each precision, and in it files of some thousand
rows each. A file is written once and never changed. Nothing here may stop a command: what cannot be read is
computed again, what cannot be written stays in memory.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from calr_cli.events import Reporter
from calr_cli.files import atomic_write, calr_home
from calr_cli.types import FloatArray

STORE_BYTES = 10 * 10**9
"""Of the features of all models: above that, those that were used longest ago are deleted."""

PART_ROWS = 4096
"""Of a file: what an interruption loses at most, and what is deleted at once."""

_SMALL_PARTS = 16
"""Files with less than half of that many rows, above which they are put together."""


@dataclass(frozen=True)
class _Part:
    """Rows that were kept together: in a file, or in memory alone (None)."""

    path: Path | None
    digests: list[str]
    rows: FloatArray


class FeatureStore:
    """The features that one model makes in one precision.

    Args:
        name: Of the model and the precision.
        dim: D.
        reporter: Warned once if features cannot be kept.
    """

    def __init__(self, name: str, dim: int, reporter: Reporter) -> None:
        self.folder = calr_home() / "galleries" / name
        self.dim, self.reporter = dim, reporter
        self._parts: list[_Part] = []
        self._places: dict[str, tuple[int, int]] = {}
        self._warned = False
        with suppress(OSError):
            for path in sorted(self.folder.glob("*.rows")):
                self._open(path)

    @property
    def bytes_in_memory(self) -> int:
        """Of the rows that could not be written."""
        return sum(part.rows.nbytes for part in self._parts if part.path is None)

    def use(self, digests: Sequence[str]) -> set[str]:
        """Those of ``digests`` whose features are here and undamaged; they now count as used last."""
        wanted = {self._places[digest][0] for digest in digests if digest in self._places}
        for number in sorted(wanted):
            part = self._parts[number]
            if part.path is None:
                continue
            if _is_intact(part.path):
                with suppress(OSError):
                    os.utime(part.path)
            else:
                self._forget(number)
        return {digest for digest in digests if digest in self._places}

    def keep(self, digests: Sequence[str], rows: FloatArray) -> None:
        """Add rows (N, D) of images of these contents; on disk if that can be."""
        path = self._write(digests, rows)
        if path is None or not self._open(path):
            self._add(_Part(None, list(digests), rows))

    def blocks(self, digests: Sequence[str], rows: int) -> Iterator[FloatArray]:
        """The features of images that are all here, at most ``rows`` of them at a time, (B, D)."""
        places = np.array([self._places[digest] for digest in digests], np.int64).reshape(-1, 2)
        for first in range(0, len(places), rows):
            numbers, within = places[first : first + rows].T
            block = np.empty((len(numbers), self.dim), np.float32)
            for number in np.unique(numbers):
                here = numbers == number
                block[here] = self._parts[number].rows[within[here]]
            yield block

    def tidy(self) -> None:
        """Put small files together, and delete what was used longest ago until the rest fits."""
        with suppress(OSError):
            small = [part for part in self._parts if part.path and len(part.digests) < PART_ROWS // 2]
            while len(small) > _SMALL_PARTS:
                some, small = small[:_SMALL_PARTS], small[_SMALL_PARTS:]
                digests = [digest for part in some for digest in part.digests]
                if self._write(digests, np.concatenate([part.rows for part in some])) is None:
                    break
                for part in some:
                    if part.path is not None:
                        part.path.unlink(missing_ok=True)
            files = [(path, path.stat()) for path in self.folder.parent.rglob("*") if path.is_file()]
            files.sort(key=lambda file: file[1].st_mtime_ns)
            total = sum(found.st_size for _, found in files)
            for path, found in files:
                if total <= STORE_BYTES:
                    break
                path.unlink(missing_ok=True)
                total -= found.st_size

    def _write(self, digests: Sequence[str], rows: FloatArray) -> Path | None:
        path = self.folder / f"{uuid4().hex}.rows"
        try:
            with atomic_write(path) as temporary:
                with temporary.open("wb") as file:
                    np.save(file, np.array(digests, "S32"))
                    np.save(file, rows)
                checksum = _checksum(temporary, temporary.stat().st_size)
                with temporary.open("ab") as file:
                    file.write(checksum)
        except OSError as error:
            if not self._warned:
                self.reporter.warning(
                    f"the features of the gallery cannot be kept ({self.folder}: {error.strerror or error}): "
                    "the next search computes them again. Free some space, or set CALR_HOME to another folder"
                )
                self._warned = True
            return None
        return path

    def _open(self, path: Path) -> bool:
        try:
            digests, rows = _mapped(path)
        except (OSError, ValueError, EOFError):
            with suppress(OSError):
                path.unlink()
            return False
        if rows.shape != (len(digests), self.dim):
            return False
        self._add(_Part(path, digests, rows))
        return True

    def _add(self, part: _Part) -> None:
        number = len(self._parts)
        self._parts.append(part)
        self._places |= {digest: (number, row) for row, digest in enumerate(part.digests)}

    def _forget(self, number: int) -> None:
        path = self._parts[number].path
        assert path is not None
        self.reporter.note(f"{path} is damaged: its features are computed again")
        with suppress(OSError):
            path.unlink()
        self._places = {digest: place for digest, place in self._places.items() if place[0] != number}


def _mapped(path: Path) -> tuple[list[str], FloatArray]:
    """Digests and rows of a file, the rows not read yet."""
    with path.open("rb") as file:
        digests: npt.NDArray[np.bytes_] = np.load(file, allow_pickle=False)
        npy.read_magic(file)
        shape, _, kind = npy.read_array_header_1_0(file)
        rows = np.memmap(path, kind, "r", file.tell(), shape)
    if kind != np.float32 or digests.ndim != 1:
        raise ValueError
    return [digest.decode("ascii") for digest in digests.tolist()], rows


def _is_intact(path: Path) -> bool:
    try:
        size = path.stat().st_size - 4
        with path.open("rb") as file:
            file.seek(size)
            return file.read() == _checksum(path, size)
    except (OSError, ValueError):
        return False


def _checksum(path: Path, size: int) -> bytes:
    """CRC of the first ``size`` bytes of a file."""
    checksum = 0
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, 1 << 20))):
            checksum = zlib.crc32(block, checksum)
            size -= len(block)
    return checksum.to_bytes(4, "little")
