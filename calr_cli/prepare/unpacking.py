"""An archive becomes a folder: whole or not at all, by one process at a time, and after an interruption."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from errno import EDQUOT, ENOSPC
from glob import escape
from hashlib import blake2b
from pathlib import Path

from calr_cli.errors import DataError
from calr_cli.events import Reporter
from calr_cli.files import calr_home, one_at_a_time
from calr_cli.prepare.archives import SUFFIX, Archive, Member, is_archive

KEEP_FREE = 64 * 2**20
"""Bytes of disk that unpacking leaves free."""

BLOCK = 4096
"""Bytes; a file takes a whole number of these on most disks."""

NESTED = 2
"""How deep in an archive other archives are unpacked."""

FULL_DISK = (ENOSPC, EDQUOT)

FULL = "Make room, what is unpacked already is kept; or unpack it elsewhere and give that folder as --root"


def unpacked_already(archive: Path, folder: Path) -> Path | None:
    """What `unpack` would return without doing anything."""
    return next((target for target in _targets(archive, folder) if target.is_dir()), None)


def unpack(opened: Archive, folder: Path, reporter: Reporter) -> Path:
    """Unpack below ``folder``, or below `calr_home` where that cannot be written; archives inside as well.

    Only ordinary files are written. They are gathered in a hidden folder, which is renamed at the end: so
    the folder that is returned is whole. Where this is interrupted, or the disk is full, the hidden folder
    stays, and the next call goes on from there. A folder that is there already is returned as it is.

    Args:
        opened: The archive. The new folder is called like it.
        folder: Where to put the new folder.
        reporter: Hears the progress, in bytes.

    Raises:
        DataError: The archive is damaged, encrypted, has links or paths that lead out of it, becomes far
            too large, or does not fit on the disk.
    """
    if target := unpacked_already(opened.path, folder):
        return target
    opened.check_members()
    try:
        with _reserved(opened.path, folder, reporter) as target:
            if not target.is_dir():
                _gather(opened, target, reporter)
            return target
    except OSError as error:
        hint = FULL if error.errno in FULL_DISK else ""
        raise DataError(f"{opened.path} cannot be unpacked: {error.strerror or error}", hint) from error


def _targets(archive: Path, folder: Path) -> tuple[Path, Path]:
    stem = SUFFIX.sub("", archive.name)
    if stem == archive.name or not stem.strip("."):
        stem = f"{archive.name}-unpacked"
    return folder / stem, calr_home() / "unpacked" / f"{stem}-{_key(archive)}"


def _key(archive: Path) -> str:
    """Tells an archive from another one of the same name, and from what it was before it was changed."""
    status = archive.stat()
    text = f"{archive.resolve()} {status.st_size} {status.st_mtime_ns}"
    return blake2b(text.encode(errors="surrogateescape"), digest_size=4).hexdigest()


@contextmanager
def _reserved(archive: Path, folder: Path, reporter: Reporter) -> Iterator[Path]:
    """The first target that can be written, for nobody but us."""

    def waiting() -> None:
        reporter.note(f"waiting for another process that unpacks {archive.name}")

    below, elsewhere = _targets(archive, folder)
    with ExitStack() as stack:
        try:
            stack.enter_context(one_at_a_time(below, waiting))
            target = below
        except OSError:
            stack.enter_context(one_at_a_time(elsewhere, waiting))
            target = elsewhere
        yield target


def _gather(opened: Archive, target: Path, reporter: Reporter) -> None:
    """Make ``target``, by way of a hidden folder beside it."""
    hidden = f".unpacking.{target.name}-"
    gathered = target.with_name(hidden + _key(opened.path))
    for other in target.parent.glob(f"{escape(hidden)}{'[0-9a-f]' * 8}"):
        if other != gathered:
            shutil.rmtree(other)  # begun with what the archive was before it was changed
    try:
        _fill(gathered, opened, NESTED, reporter)
    except BaseException as error:
        # Only after these can the next call go on from here.
        if not isinstance(error, KeyboardInterrupt) and getattr(error, "errno", None) not in FULL_DISK:
            shutil.rmtree(gathered, ignore_errors=True)
        raise
    inner = gathered / target.name
    if inner.is_dir() and len(list(gathered.iterdir())) == 1:
        inner.rename(target)  # the folder that most archives have at their top
        gathered.rmdir()
    else:
        gathered.rename(target)


def _fill(folder: Path, opened: Archive, nested: int, reporter: Reporter) -> int:
    """Write the files that ``folder`` lacks, and return how many bytes belong into it."""
    missing = {m.parts: m for m in opened.members if not _is_there(folder.joinpath(*m.parts), m)}
    _check_space(sum(-(-m.size // BLOCK) * BLOCK for m in missing.values()), folder.parent)
    folder.mkdir(exist_ok=True)
    with reporter.progress(f"Unpacking {opened.path.name}", opened.size, "bytes") as progress:
        for member in opened.members:
            if member.parts not in missing:
                progress.advance(member.size)
                continue
            path = folder.joinpath(*member.parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as sink:
                for piece in opened.content(member):
                    sink.write(piece)
                    progress.advance(len(piece))
    size = opened.size
    for member in opened.members:
        if nested and is_archive(member.parts[-1]):
            path = folder.joinpath(*member.parts)
            with Archive(path, reporter, opened.limit - size) as inner:
                inner.check_members()
                size += _fill(path.with_name(SUFFIX.sub("", path.name)), inner, nested - 1, reporter)
            path.unlink()
    return size


def _is_there(path: Path, member: Member) -> bool:
    """Whether the file was written before an interruption: one that was not finished is shorter."""
    return path.is_file() and path.stat().st_size == member.size


def _check_space(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free - KEEP_FREE:
        raise OSError(ENOSPC, f"{needed / 2**30:.1f} GiB are needed, {free / 2**30:.1f} GiB are free")
