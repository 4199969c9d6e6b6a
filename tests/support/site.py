"""A web server on this machine that answers as it is told to, well or badly."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

Reply = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """Paths and what they answer: each request takes the next reply of its path, and the last one stays."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.address = f"http://127.0.0.1:{server.server_port}"
        self.replies: dict[str, list[Reply]] = {}
        self.asked: list[tuple[str, str | None]] = []
        """Path and ``Range`` of each request."""
        self.headers: Mapping[str, str] = {}
        """Of the last request."""

    def put(self, path: str, *replies: Reply) -> str:
        """Answer requests for ``path`` so, one after the other; return the address."""
        self.replies[path] = list(replies)
        return self.address + path

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path
        self.asked.append((path, handler.headers["Range"]))
        self.headers = handler.headers
        replies = self.replies.get(path) or self.replies.get(path.partition("?")[0]) or [status(404)]
        (replies.pop(0) if len(replies) > 1 else replies[0])(handler)


@contextmanager
def running_site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that went away

    with Server(("127.0.0.1", 0), Handler) as server:
        site = Site(server)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


def send(handler: BaseHTTPRequestHandler, code: int, headers: dict[str, str], body: bytes) -> None:
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def ranges(content: bytes, ends: int | None = None) -> Reply:
    """A good server; one that drops the connection before byte ``ends``."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        start = int(re.sub(r"\D", "", handler.headers["Range"] or "0"))
        rest = content[start:]
        if start >= len(content) > 0 and handler.headers["Range"]:
            send(handler, 416, {"Content-Range": f"bytes */{len(content)}"}, b"")
            return
        headers = {"Content-Length": str(len(rest))}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        send(handler, 206 if start else 200, headers, content[start:ends])

    return reply


def whole(content: bytes, ends: int | None = None) -> Reply:
    """A server that ignores ranges; one that drops the connection before byte ``ends``."""
    return lambda handler: send(handler, 200, {"Content-Length": str(len(content))}, content[:ends])


def unmeasured(content: bytes) -> Reply:
    """A server that does not say how much it will send."""
    return lambda handler: send(handler, 200, {}, content)


def chunked(content: bytes, finished: bool = True) -> Reply:
    """A server that sends pieces of unknown number, and does not always get to the last."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        body = b"%x\r\n%b\r\n" % (len(content), content)
        send(handler, 200, {"Transfer-Encoding": "chunked"}, body + (b"0\r\n\r\n" if finished else b""))

    return reply


def trickle(content: bytes, pieces: int, pause: float) -> Reply:
    """A server that takes a rest after each piece."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, {"Content-Length": str(len(content))}, b"")
        size = -(-len(content) // pieces)
        for start in range(0, len(content), size):
            handler.wfile.write(content[start : start + size])
            handler.wfile.flush()
            time.sleep(pause)

    return reply


def other_range(content: bytes) -> Reply:
    """A server that sends the wrong part of the file."""
    headers = {"Content-Range": f"bytes 3-{len(content) - 1}/{len(content)}"}
    return lambda handler: send(
        handler, 206, {**headers, "Content-Length": str(len(content) - 3)}, content[3:]
    )


def status(code: int, **headers: str) -> Reply:
    """A refusal; ``retry_after`` stands for the header of that name."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: send(handler, code, {**named, "Content-Length": "0"}, b"")


def redirect(address: str) -> Reply:
    return status(302, Location=address)


def page(html: str, kind: str = "text/html; charset=utf-8") -> Reply:
    """A web page with status 200."""
    return lambda handler: send(handler, 200, {"Content-Type": kind}, html.encode())


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection without a word."""
    handler.connection.shutdown(socket.SHUT_RDWR)


QUOTA_PAGE = """<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>
<p class="uc-error-caption">This file cannot be had at this time.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p>
</body></html>"""


def question_page(action: str, file_id: str) -> str:
    """Google's page before a file that it did not scan for viruses."""
    hidden = {"id": file_id, "export": "download", "confirm": "t", "uuid": "1-2-3"}
    inputs = "".join(f'<input type="hidden" name="{name}" value="{value}">' for name, value in hidden.items())
    form = f'<form id="download-form" action="{action}" method="get"><input type="submit">{inputs}</form>'
    return f"<!DOCTYPE html><html><head><title>Google Drive</title></head>\n<body>{form}</body></html>"


def folder_page(files: dict[str, str]) -> str:
    """Google's page of a public folder: names of files and their ids."""
    rows = "".join(
        f'<a href="https://drive.google.com/file/d/{file_id}/view?usp=drive_web">{name}</a>'
        for name, file_id in files.items()
    )
    return f"<!DOCTYPE html><html><head><title>IBN-Net</title></head><body>{rows}</body></html>"


def stand_in_for_drive(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked of Google Drive in this process, gdown's questions too, ``site`` is asked."""
    request = requests.Session.request

    def redirected(self: requests.Session, method: str, url: str, *args: object, **options: object) -> object:
        url = re.sub(r"^https://drive(\.usercontent)?\.google\.com", site.address, url)
        return request(self, method, url, *args, **options)

    monkeypatch.setattr(requests.Session, "request", redirected)
