"""What is in a zip or tar, and its files written out, without trusting any of it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from calr_cli.errors import DataError
from calr_cli.events import Progress, Reporter
from calr_cli.prepare.datasets.layout import is_junk

SUFFIX = re.compile(r"\.(zip|tar|tar\.gz|tgz|tar\.bz2|tar\.xz)$", re.IGNORECASE)

DRIVE = re.compile(r"/|[A-Za-z]:")
"""Start of an absolute path, on this system or another."""

MOST_FILES = 500_000
"""Files and folders in an archive; MSMT17 has a quarter of that."""

GROWTH = 100
"""How many times its own size an archive may become: images hardly shrink in one, a bomb does."""

HARMLESS = 2**30
"""Bytes that any archive may become."""

AT_A_TIME = 2**20
"""Bytes read at a time."""

LONGEST_READ = 2**26
"""Bytes: tarfile reads a header of any size at once, and one that lies about it would fill the memory."""

HOSTILE = "Do not trust this archive: unpack it by hand if you must, and look at what is in it"

DECOMPRESSORS: dict[bytes, Callable[[Path, str], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
"""By the first bytes of a file, since a file that was fetched by hand may be called anything."""

BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    IndexError,  # of a name that is empty
    RuntimeError,  # of a compression that zipfile does not know
    ValueError,  # of a name or number that is none
)
"""What the libraries raise for damage."""


@dataclass(frozen=True)
class Member:
    """What an archive holds under one name; ``handle`` is what its library calls it."""

    name: str
    size: int
    is_folder: bool
    is_regular: bool
    is_encrypted: bool
    handle: zipfile.ZipInfo | tarfile.TarInfo

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The names of its folders and its own."""
        return tuple(part for part in PurePosixPath(self.name.replace("\\", "/")).parts if part != ".")


def is_archive(name: str) -> bool:
    """Whether the file name is that of an archive we can unpack."""
    return bool(SUFFIX.search(name))


class Archive:
    """An open zip or tar, whatever it is called, and its files but for those an operating system left behind.

    Args:
        path: The file.
        reporter: Hears how far it is read: a compressed tar has to be read to its end.
        limit: Bytes that it may become; None: what `GROWTH` allows.

    Raises:
        DataError: It is damaged, or more than the limit or more than `MOST_FILES` come out of it.
    """

    def __init__(self, path: Path, reporter: Reporter, limit: int | None = None) -> None:
        self.path = path
        with damage(path), ExitStack() as stack:
            self.limit = max(HARMLESS, GROWTH * path.stat().st_size) if limit is None else limit
            self._opened = stack.enter_context(_open(path, self.limit))
            with reporter.progress(f"Reading {path.name}", 0, "bytes") as progress:
                self.members = list(self._bounded_members(progress))
            self._stack = stack.pop_all()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def size(self) -> int:
        """Bytes of all files, unpacked."""
        return sum(member.size for member in self.members)

    def holds_folder(self, names: Iterable[str]) -> bool:
        """Whether any file lies in a folder of one of these names."""
        wanted = set(names)
        return any(wanted.intersection(member.parts[:-1]) for member in self.members)

    def holds_archive(self) -> bool:
        """Whether there is an archive in it."""
        return any(is_archive(member.name) for member in self.members)

    def check_members(self) -> None:
        """Make certain that each file may be written.

        Raises:
            DataError: The archive is encrypted, or has links or paths that lead out of it.
        """
        for member in self.members:
            parts = member.parts
            if not parts or ".." in parts or DRIVE.match(parts[0]) or "\0" in member.name:
                raise DataError(
                    f"{self.path}: '{member.name}' would be written outside of its folder", HOSTILE
                )
            if not member.is_regular:
                raise DataError(f"{self.path}: '{member.name}' is a link or device, not a file", HOSTILE)
            if member.is_encrypted:
                raise DataError(
                    f"{self.path} is encrypted", "Unpack it with its password and give that folder as --root"
                )

    def content(self, member: Member) -> Iterator[bytes]:
        """The bytes of a file, in pieces; exactly as many as `Member.size` says.

        Raises:
            DataError: The archive is damaged.
        """
        with damage(self.path):
            left = member.size
            with self._open(member) as source:
                while piece := source.read(AT_A_TIME):
                    left -= len(piece)
                    yield piece
            if left:
                raise EOFError(f"{member.name} is shorter than it should be")

    def _bounded_members(self, progress: Progress) -> Iterator[Member]:
        size = 0
        for count, member in enumerate(_members(self._opened), start=1):
            size += member.size
            if size > self.limit or count > MOST_FILES:
                raise _too_much(self.path)
            progress.advance(member.size)
            if not member.is_folder and not any(is_junk(part) and part != ".." for part in member.parts):
                yield member

    def _open(self, member: Member) -> IO[bytes]:
        if isinstance(self._opened, zipfile.ZipFile):
            return self._opened.open(cast(zipfile.ZipInfo, member.handle))
        content = self._opened.extractfile(cast(tarfile.TarInfo, member.handle))
        assert content is not None
        return content


class _Bounded(io.RawIOBase):
    """A stream that is read no further than ``limit`` bytes, and not much of it at once."""

    def __init__(self, stream: IO[bytes], path: Path, limit: int) -> None:
        self._stream, self._path, self._limit = stream, path, limit

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LONGEST_READ or self._stream.tell() > self._limit:
            raise _too_much(self._path)
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if offset > self._limit:
            raise _too_much(self._path)
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _too_much(path: Path) -> DataError:
    return DataError(f"{path} would become far larger than an archive of images does", HOSTILE)


@contextmanager
def damage(archive: Path) -> Iterator[None]:
    """Whatever the libraries raise, in the block, for an archive that cannot be read, as a `DataError`."""
    try:
        yield
    except BROKEN as error:
        raise DataError(
            f"{archive} is damaged, or neither a zip nor a tar: {error}", "Fetch it again, or move it away"
        ) from error
    except OSError as error:
        raise DataError(f"{archive} cannot be unpacked: {error.strerror or error}") from error


@contextmanager
def _open(path: Path, limit: int) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"PK"):
        with zipfile.ZipFile(path) as opened:
            yield opened
    else:
        known = (opener for magic, opener in DECOMPRESSORS.items() if start.startswith(magic))
        decompress = next(known, Path.open)
        with (
            decompress(path, "rb") as stream,
            tarfile.open(fileobj=cast(IO[bytes], _Bounded(stream, path, limit)), mode="r:") as tar,
        ):
            yield tar


def _members(opened: zipfile.ZipFile | tarfile.TarFile) -> Iterator[Member]:
    if isinstance(opened, zipfile.ZipFile):
        for info in opened.infolist():
            mode = info.external_attr >> 16
            regular = not stat.S_IFMT(mode) or stat.S_ISREG(mode)
            encrypted = bool(info.flag_bits & 1)
            yield Member(info.filename, info.file_size, info.is_dir(), regular, encrypted, info)
        return
    for tar_info in opened:
        if tar_info.size < 0:
            raise tarfile.ReadError("a size is negative")
        regular = tar_info.isreg() and not tar_info.issparse()
        yield Member(tar_info.name, tar_info.size, tar_info.isdir(), regular, False, tar_info)
    stream = opened.fileobj
    assert stream is not None
    stream.seek(opened.offset)
    if (end := stream.read(tarfile.BLOCKSIZE)) != bytes(tarfile.BLOCKSIZE):
        # tarfile takes whatever is no header for the end of the archive.
        raise tarfile.ReadError("a header is not one" if end else "it is cut short")
    while stream.read(AT_A_TIME):
        pass  # the compressor's check sum comes after the end mark, where reading a tar stops
