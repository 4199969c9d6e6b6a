"""Requests to a server, and what its answer means: take the bytes, try again, or try another source."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, cast
from urllib.parse import urlencode

import requests

CONNECT_SECONDS = 15.0

READ_SECONDS = 30.0
"""Seconds for which a server may be silent."""

LONGEST_WAIT = 60.0
"""Seconds; if a server asks for a longer wait, the next source is tried."""

CHUNK_BYTES = 1 << 16

PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Status codes of errors that may be over a moment later."""

DRIVE = "https://drive.google.com/uc"


@dataclass(frozen=True)
class DriveFile:
    """A public file on Google Drive; links to files from before 2021 contain a ``resource_key``."""

    id: str
    resource_key: str | None = None

    def __str__(self) -> str:
        key = f"?resourcekey={self.resource_key}" if self.resource_key else ""
        return f"https://drive.google.com/file/d/{self.id}/view{key}"


@dataclass(frozen=True)
class DriveFolderFile:
    """The file called ``name`` in a public folder on Google Drive."""

    folder_id: str
    name: str

    def __str__(self) -> str:
        return f"https://drive.google.com/drive/folders/{self.folder_id}"


Source = str | DriveFile | DriveFolderFile
"""A place to get a file from: an address, or a file on Google Drive."""


class SourceError(Exception):
    """The source does not deliver the file."""


class PassingError(Exception):
    """The source may deliver the file later; ``wait`` is the number of seconds that it asked for, if any."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True)
class Answer:
    """The bytes of a file from ``offset`` on; ``total`` is the size of the whole file, 0 if not known."""

    offset: int
    total: int
    chunks: Iterator[bytes]


@contextmanager
def answer(source: Source, have: int) -> Iterator[Answer]:
    """Request a file, of which the first ``have`` bytes are already here.

    If the server cannot continue there, it starts from the beginning, and ``offset`` is 0. If the file has no
    more than ``have`` bytes, there are no chunks. The proxies of the environment are used.

    Raises:
        SourceError: The server cannot be reached, refuses, or answers with a web page.
        PassingError: The server is busy, or the connection breaks, possibly while the chunks are read.
    """
    with requests.Session() as session:
        session.headers["Accept-Encoding"] = "identity"  # ranges are of the file, not of a compressed one
        if have:
            session.headers["Range"] = f"bytes={have}-"
        with _ask(session, source) as response:
            if response.status_code == 416:
                yield Answer(have, have, iter(()))
                return
            _check_status(response, source)
            offset, total = _extent(response)
            pieces = _pieces(response, source, offset, total)
            first = next(pieces, b"")
            if _is_page(response) or first.lstrip()[:5].lower() in (b"<html", b"<!doc"):
                raise SourceError(f"{source} answers with a web page, not the file{_title(first)}")
            yield Answer(offset, total, chain([first], pieces))


def _ask(session: requests.Session, source: Source) -> requests.Response:
    if isinstance(source, str):
        return _get(session, source, source)
    file = _found(source) if isinstance(source, DriveFolderFile) else source
    session.headers["User-Agent"] = "Mozilla/5.0"  # the pages are those that gdown reads, made for browsers
    key = {"resourcekey": file.resource_key} if file.resource_key else {}
    response = _get(session, f"{DRIVE}?{urlencode({'export': 'download', 'id': file.id, **key})}", source)
    if not (response.ok and _is_page(response)):
        return response
    with response:
        url = _confirmed(_text(response, source), source)
    if key and "resourcekey=" not in url:
        url = f"{url}&{urlencode(key)}"
    return _get(session, url, source)


def _found(folder: DriveFolderFile) -> DriveFile:
    """Find the file in the listing of the folder."""
    from gdown import download_folder  # gdown takes long to import, and few downloads need it

    try:
        files = download_folder(
            id=folder.folder_id, quiet=True, use_cookies=False, skip_download=True, timeout=READ_SECONDS
        )
    except requests.RequestException as error:
        raise SourceError(_unreachable(folder, error)) from error
    except Exception as error:  # the listing is a page made for people, which may change
        raise SourceError(f"{folder} cannot be listed: {_one_line(error)}") from error
    for file in cast(list[Any], files):  # they are names of files only where something is downloaded
        if PurePosixPath(file.path).name == folder.name:
            return DriveFile(file.id)
    raise SourceError(f"{folder} has no file {folder.name}")


def _confirmed(page: str, source: Source) -> str:
    """The address that follows Google's question about a file that was not scanned for viruses."""
    from gdown.download import get_url_from_gdrive_confirmation

    try:
        return str(get_url_from_gdrive_confirmation(page))
    except Exception as error:  # it says that the quota is used up, or cannot read a page of a new form
        raise SourceError(f"{source} is refused: {_one_line(error)}") from error


def _get(session: requests.Session, url: str, source: Source) -> requests.Response:
    try:
        return session.get(url, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS))
    except requests.RequestException as error:
        dropped = isinstance(_root(error), ConnectionResetError | TimeoutError)
        if dropped and not isinstance(error, requests.ConnectTimeout):
            raise PassingError(_unreachable(source, error)) from error
        raise SourceError(_unreachable(source, error)) from error


def _check_status(response: requests.Response, source: Source) -> None:
    if response.status_code in (200, 206):
        return
    said = f"{source} answers {response.status_code} {response.reason}"
    if response.status_code not in PASSING:
        raise SourceError(said)
    wait = _retry_after(response)
    if wait is not None and wait > LONGEST_WAIT:
        raise SourceError(f"{said} and asks to wait for {wait:.0f} seconds")
    raise PassingError(said, wait)


def _retry_after(response: requests.Response) -> float | None:
    """The seconds to wait; the server states seconds or a date."""
    text = response.headers.get("Retry-After", "")
    if text.isdecimal():
        return float(text)
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    return None


def _extent(response: requests.Response) -> tuple[int, int]:
    """The position in the file at which the response begins, and the size of the file, 0 if not known."""
    if found := re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "")):
        return int(found[1]), int(found[2]) if found[2] != "*" else 0
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else 0


def _pieces(response: requests.Response, source: Source, offset: int, total: int) -> Iterator[bytes]:
    received, broken = offset, False
    try:
        for piece in response.iter_content(CHUNK_BYTES):
            received += len(piece)
            yield piece
    except requests.RequestException:
        broken = True
    if broken or received < total:
        of = f" of {total:,}" if total else ""
        raise PassingError(f"{source} broke off after {received:,}{of} bytes")


def _text(response: requests.Response, source: Source) -> str:
    try:
        return response.text
    except requests.RequestException as error:
        raise PassingError(_unreachable(source, error)) from error


def _is_page(response: requests.Response) -> bool:
    return response.headers.get("Content-Type", "").lower().startswith("text/html")


def _title(page: bytes) -> str:
    found = re.search(r"<title[^>]*>(.*?)</title>", page.decode(errors="replace"), re.DOTALL | re.IGNORECASE)
    return f" ('{' '.join(found[1].split())}')" if found else ""


def _unreachable(source: Source, error: requests.RequestException) -> str:
    through = " through the proxy" if isinstance(error, requests.exceptions.ProxyError) else ""
    reason = _root(error)
    return f"cannot reach {source}{through}: {getattr(reason, 'strerror', None) or _one_line(reason)}"


def _root(error: BaseException) -> BaseException:
    """The error of the system or the protocol, which requests and urllib3 wrap several times."""
    while type(error).__module__.startswith(("requests.", "urllib3.")):
        cause = error.__cause__ or error.__context__
        if cause is None:
            break
        error = cause
    return error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
