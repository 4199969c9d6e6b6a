"""Downloads that resume, retry, try several sources, and check a file before it gets its name."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import sleep
from typing import Protocol

from calr_cli.errors import CalrError
from calr_cli.events import Reporter
from calr_cli.files import atomic_write, lock_of, one_at_a_time
from calr_cli.web import DriveFile, DriveFolderFile, PassingError, Source, SourceError, answer

__all__ = ["Check", "Digest", "DriveFile", "DriveFolderFile", "Source", "adopt_file", "download"]

ATTEMPTS = 4
"""Attempts in a row without new data after which the next source is tried."""


class Check(Protocol):
    """A condition on the content of a file."""

    def problem(self, path: Path) -> str:
        """What is wrong with ``path``: the rest of a sentence that begins with its name; empty if right."""
        ...


@dataclass(frozen=True)
class Digest:
    """The digest of a file: ``algorithm`` is one of hashlib, ``hexadecimal`` its first digits or all."""

    algorithm: str
    hexadecimal: str

    @classmethod
    def of_file(cls, path: Path, algorithm: str = "sha256") -> Digest:
        """The whole digest of ``path``."""
        with path.open("rb") as file:
            return cls(algorithm, hashlib.file_digest(file, algorithm).hexdigest())

    def matches(self, path: Path) -> bool:
        """Whether the content of ``path`` has this digest."""
        return not self.problem(path)

    def problem(self, path: Path) -> str:
        """See `Check.problem`."""
        found = self.of_file(path, self.algorithm).hexadecimal
        if found.startswith(self.hexadecimal):
            return ""
        return f"has the wrong {self.algorithm}: {found[:8]} instead of {self.hexadecimal[:8]}"


def download(
    sources: Sequence[Source],
    target: Path,
    check: Check,
    title: str,
    reporter: Reporter,
    error_class: type[CalrError],
    hint: str = "",
) -> None:
    """Fetch ``target`` from the first source that delivers it, unless it is there and right.

    The file gets its name only when it is complete and checked. Until then, the data are in ``<name>.part``
    beside it; if the check is a `Digest`, the next call continues from there, from any source. Two calls at
    the same time, in this process or another, take turns.

    Args:
        sources: Sources, in the order in which to try them.
        target: The file; missing parent folders are made.
        check: The condition on the file, a `Digest` if one is known.
        title: Title of the progress, which counts bytes.
        reporter: Receiver of retries and progress.
        error_class: Class of the error to raise.
        hint: Advice for the case that every source fails, for example how to get the file by hand.

    Raises:
        CalrError: As ``error_class``: no source delivered the file (one line for each), or ``target`` cannot
            be written.
    """
    try:
        wait = partial(reporter.note, f"waiting for another process that fetches {target.name}")
        with one_at_a_time(target, wait):
            if not target.is_file() or check.problem(target):
                part = target.with_name(f"{target.name}.part")
                if problems := _fetch_from_any(sources, part, check, title, reporter):
                    raise error_class(problems, hint)
                part.replace(target)
            with suppress(PermissionError):  # not while it is open, say some systems
                lock_of(target).unlink()  # whoever waits for it will find the file and write nothing
    except OSError as error:
        raise error_class(
            f"cannot write {target}: {error.strerror or error}", "Free some space there, or make it writable"
        ) from error


def adopt_file(path: Path, target: Path, check: Check, error_class: type[CalrError], hint: str = "") -> None:
    """Copy a file that was fetched by hand to ``target``, whole or not at all, after the same check.

    Raises:
        CalrError: As ``error_class``: ``path`` cannot be read or is a different file, or ``target`` cannot be
            written.
    """
    if not path.is_file():
        raise error_class(f"no file {path}")
    try:
        if problem := check.problem(path):
            raise error_class(f"{path} {problem}", hint)
        with atomic_write(target) as temporary:
            shutil.copyfile(path, temporary)
    except OSError as error:
        raise error_class(f"cannot copy {path} to {target}: {error.strerror or error}") from error


def _fetch_from_any(
    sources: Sequence[Source], part: Path, check: Check, title: str, reporter: Reporter
) -> list[str]:
    """Fill ``part`` from the first source that delivers the file; else return a problem per source."""
    problems = []
    for source in sources:
        try:
            _fetch(source, part, check, title, reporter)
        except SourceError as error:
            problems.append(str(error))
        else:
            return []
    return problems


def _fetch(source: Source, part: Path, check: Check, title: str, reporter: Reporter) -> None:
    """Fill ``part`` until it passes ``check``.

    Raises:
        SourceError: The source did not deliver the file; data that can be resumed stay.
    """
    most, failures, anew = _size(part), 0, False
    while True:
        if not isinstance(check, Digest):  # nothing else tells whether two halves are of one file
            part.unlink(missing_ok=True)
        try:
            appended = _transfer(source, part, title, reporter)
        except PassingError as trouble:
            failures = 1 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures == ATTEMPTS:
                raise SourceError(str(trouble)) from trouble
            wait = float(2 ** (failures - 1)) if trouble.wait is None else trouble.wait
            reporter.note(f"{trouble}: trying again in {wait:.0f} s")
            sleep(wait)
            continue
        problem = check.problem(part)
        if not problem:
            return
        part.unlink()
        if anew or not appended:
            raise SourceError(f"{source} {problem}, nothing was kept")
        reporter.note(f"{title}: what was put together {problem}: beginning anew")
        anew = True


def _transfer(source: Source, part: Path, title: str, reporter: Reporter) -> bool:
    """Append to ``part``, or rewrite it if the source cannot continue; return whether it continued."""
    with answer(source, _size(part)) as file:
        if file.offset:
            reporter.note(f"{title}: going on after {file.offset / 1e6:.1f} MB")
        remaining = max(file.total - file.offset, 0)
        with (
            part.open("ab" if file.offset else "wb") as sink,
            reporter.progress(title, remaining, "bytes") as progress,
        ):
            for chunk in file.chunks:
                sink.write(chunk)
                progress.advance(len(chunk))
        return file.offset > 0


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
