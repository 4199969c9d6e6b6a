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
"""How often in a row a source may bring nothing new before the next one is asked."""


class Check(Protocol):
    """What a file has to be."""

    def problem(self, path: Path) -> str:
        """What is wrong with ``path``: the rest of a sentence that begins with its name, or nothing."""
        ...


@dataclass(frozen=True)
class Digest:
    """The check sum of a file: ``algorithm`` of hashlib, ``hexadecimal`` whole or its first digits."""

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
    """Fetch ``target`` from the first source that gives it; nothing is done if it is there and right.

    The file appears under its name only whole and checked. What has arrived until then is in
    ``<name>.part`` beside it; where the check is a `Digest`, the next call goes on from there, from whatever
    source. Two calls at once, in this process or another, take turns.

    Args:
        sources: In the order in which to ask them.
        target: The file; missing parent folders are made.
        check: What it has to be, a `Digest` wherever one is known.
        title: Of the progress, counted in bytes.
        reporter: Told about retries and progress.
        error_class: What to raise.
        hint: What to do if every source fails, for example how to get the file by hand.

    Raises:
        CalrError: Of ``error_class``: no source gave the file, one line for each, or it cannot be written.
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
        CalrError: Of ``error_class``: it cannot be read, it is another file, or ``target`` cannot be written.
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
    """Fill ``part`` from the first source that gives the file; else what is wrong with each."""
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
    """Fill ``part`` until it is what ``check`` says.

    Raises:
        SourceError: The source did not give it; what is worth resuming stays.
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
    """Append to ``part``, or write it anew if the source cannot go on there; return whether it could."""
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
