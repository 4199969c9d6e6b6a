"""Zips and tars, unpacked without trusting what is in them."""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp
from typing import IO

from calr_cli.data.datasets.layout import is_junk
from calr_cli.errors import DataError
from calr_cli.events import Reporter
from calr_cli.files import calr_home

SUFFIX = re.compile(r"\.(zip|tar|tar\.gz|tgz|tar\.bz2|tar\.xz)$", re.IGNORECASE)

DRIVE = re.compile(r"/|[A-Za-z]:")
"""Start of an absolute path, on this system or another."""

KEEP_FREE = 64 * 2**20
"""Bytes of disk that unpacking leaves free."""

HOSTILE = "Do not trust this archive: unpack it by hand if you must, and look at what is in it"

BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError)
"""What the libraries raise for damage; zipfile raises a RuntimeError for a compression it does not know."""


@dataclass(frozen=True)
class Member:
    """A file or link of an archive; ``handle`` is what its library calls it."""

    name: str
    size: int
    is_regular: bool
    is_encrypted: bool
    handle: zipfile.ZipInfo | tarfile.TarInfo


def is_archive(name: str) -> bool:
    """Whether the file name is that of an archive we can unpack."""
    return bool(SUFFIX.search(name))


def holds_folder(archive: Path, folders: set[str]) -> bool:
    """Whether any file of the archive lies in a folder of one of these names.

    Raises:
        DataError: The archive is damaged.
    """
    with _damage(archive), _open(archive) as opened:
        return any(folders & set(_parts(member)[:-1]) for member in _members(opened))


def unpack(archive: Path, reporter: Reporter) -> Path:
    """Unpack beside the archive, or under `calr_home` where that folder cannot be written.

    Only ordinary files are written, into a temporary folder that is renamed at the end, so the
    folder that is returned is whole. One that is there already is returned as it is.

    Raises:
        DataError: The archive is damaged, encrypted, has links or paths that lead out of it, or
            does not fit on the disk.
    """
    stem = SUFFIX.sub("", archive.name)
    status = archive.stat()
    key = f"{archive.resolve()} {status.st_size} {status.st_mtime_ns}".encode(errors="surrogateescape")
    elsewhere = calr_home() / "unpacked" / f"{stem}-{blake2b(key, digest_size=4).hexdigest()}"
    for target in (archive.parent / stem, elsewhere):
        if target.is_dir():
            return target
    with _damage(archive):
        target, temporary = _reserve(archive.parent / stem, elsewhere)
    try:
        with _damage(archive), _open(archive) as opened:
            members = _checked(archive, _members(opened), shutil.disk_usage(temporary).free)
            with reporter.progress(f"Unpacking {archive.name}", len(members), "files") as progress:
                for member in members:
                    path = temporary.joinpath(*_parts(member))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with _content(opened, member) as source, path.open("wb") as sink:
                        shutil.copyfileobj(source, sink, 2**20)
                    progress.advance()
            temporary.chmod(0o755)
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _reserve(beside: Path, elsewhere: Path) -> tuple[Path, Path]:
    """The target and a temporary folder on the same disk, the first place that can be written."""
    try:
        return beside, Path(mkdtemp(dir=beside.parent, prefix=".unpacking."))
    except OSError:
        elsewhere.parent.mkdir(parents=True, exist_ok=True)
        return elsewhere, Path(mkdtemp(dir=elsewhere.parent, prefix=".unpacking."))


@contextmanager
def _damage(archive: Path) -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        raise DataError(f"{archive} is damaged: {error}", "Fetch it again, or move it away") from error
    except OSError as error:
        raise DataError(f"{archive} cannot be unpacked: {error.strerror or error}") from error


@contextmanager
def _open(archive: Path) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    opened: zipfile.ZipFile | tarfile.TarFile
    opened = zipfile.ZipFile(archive) if archive.suffix.lower() == ".zip" else tarfile.open(archive)  # noqa: SIM115
    with opened:
        yield opened


def _members(opened: zipfile.ZipFile | tarfile.TarFile) -> Iterator[Member]:
    """Everything but folders and what an operating system left behind."""
    if isinstance(opened, zipfile.ZipFile):
        for info in opened.infolist():
            mode = info.external_attr >> 16
            regular = not stat.S_IFMT(mode) or stat.S_ISREG(mode)
            member = Member(info.filename, info.file_size, regular, bool(info.flag_bits & 1), info)
            if not info.is_dir() and not _is_left_behind(member):
                yield member
    else:
        for tar_info in opened:
            member = Member(tar_info.name, tar_info.size, tar_info.isreg(), False, tar_info)
            if not tar_info.isdir() and not _is_left_behind(member):
                yield member
        while opened.fileobj is not None and opened.fileobj.read(2**20):
            pass  # the compressor's check sum comes after the end mark, where reading a tar stops


def _is_left_behind(member: Member) -> bool:
    return any(is_junk(part) and part != ".." for part in _parts(member))


def _parts(member: Member) -> tuple[str, ...]:
    return tuple(part for part in PurePosixPath(member.name.replace("\\", "/")).parts if part != ".")


def _checked(archive: Path, members: Iterator[Member], free: int) -> list[Member]:
    """All members, once it is certain that each may be written."""
    checked = list(members)
    for member in checked:
        parts = _parts(member)
        if not parts or ".." in parts or DRIVE.match(parts[0]):
            raise DataError(f"{archive}: '{member.name}' would be written outside of its folder", HOSTILE)
        if not member.is_regular:
            raise DataError(f"{archive}: '{member.name}' is a link or device, not a file", HOSTILE)
        if member.is_encrypted:
            raise DataError(f"{archive} is encrypted", "Unpack it with its password, then try again")
    if (needed := sum(member.size for member in checked)) > free - KEEP_FREE:
        raise DataError(
            f"{archive} needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free",
            "Make room, or unpack it on another disk and give that folder as --root",
        )
    return checked


def _content(opened: zipfile.ZipFile | tarfile.TarFile, member: Member) -> IO[bytes]:
    if isinstance(opened, zipfile.ZipFile):
        assert isinstance(member.handle, zipfile.ZipInfo)
        return opened.open(member.handle)
    assert isinstance(member.handle, tarfile.TarInfo)
    content = opened.extractfile(member.handle)
    assert content is not None
    return content
