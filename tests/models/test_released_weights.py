from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from calr_cli.errors import ConfigError, WeightsError
from calr_cli.events import Progress, SilentReporter
from calr_cli.models import released_weights
from calr_cli.models.backbones import ARCHS
from calr_cli.models.released_weights import RELEASES, Release, cached_weights, fetch_pretrained

CONTENT = bytes(range(256)) * 8000  # more than one chunk
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = f"tiny-{SHA256[:8]}.pth"


class Handler(BaseHTTPRequestHandler):
    """Answers by the folder in the path: right, changed or shortened bytes, or 404."""

    def do_GET(self) -> None:
        folder = self.path.split("/")[1]
        body = {"right": CONTENT, "changed": CONTENT[::-1], "short": CONTENT[:1000]}.get(folder)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


class Recorder(SilentReporter):
    """Remembers the announced total and what was counted."""

    def __init__(self) -> None:
        self.announced: list[tuple[str, int, str]] = []
        self.counted = 0

    def progress(self, title: str, total: int, unit: str = "") -> AbstractContextManager[Progress]:
        self.announced.append((title, total, unit))

        @contextmanager
        def bar() -> Iterator[Progress]:
            yield self

        return bar()

    def advance(self, count: int = 1, **figures: float) -> None:
        self.counted += count


def publish(monkeypatch: pytest.MonkeyPatch, url: str, sha256: str = SHA256) -> None:
    monkeypatch.setitem(RELEASES, "resnet18", Release(url, sha256))


def refusal(calr_home: Path) -> str:
    with pytest.raises(WeightsError) as error:
        fetch_pretrained("resnet18", SilentReporter())
    assert not any(path.is_file() for path in calr_home.rglob("*"))
    (line,) = error.value.lines()
    return line


@pytest.mark.parametrize("digits", [8, 64])
def test_fetches_counts_and_then_finds(
    calr_home: Path, server: str, monkeypatch: pytest.MonkeyPatch, digits: int
) -> None:
    publish(monkeypatch, f"{server}/right/{NAME}", SHA256[:digits])
    recorder = Recorder()
    path = fetch_pretrained("resnet18", recorder)
    assert path == calr_home / "weights" / NAME
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert recorder.announced == [(f"downloading {NAME}", len(CONTENT), "bytes")]
    assert recorder.counted == len(CONTENT)

    publish(monkeypatch, f"{server}/absent/{NAME}")  # would now answer 404
    assert fetch_pretrained("resnet18", recorder) == cached_weights("resnet18") == path


def test_replaces_a_damaged_file(calr_home: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, f"{server}/right/{NAME}")
    (calr_home / "weights").mkdir(parents=True)
    (calr_home / "weights" / NAME).write_text("damaged")
    assert fetch_pretrained("resnet18", SilentReporter()).read_bytes() == CONTENT


def test_does_not_download_what_torch_hub_has(
    hub: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, f"{server}/absent/{NAME}")
    hub.mkdir(parents=True)
    (hub / NAME).write_bytes(CONTENT)
    assert fetch_pretrained("resnet18", SilentReporter()) == hub / NAME


def test_bad_answers(calr_home: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hint = f"Try again, or get it elsewhere and put it into {calr_home}/weights"
    publish(monkeypatch, url := f"{server}/changed/{NAME}")
    assert refusal(calr_home) == (
        f"{url} has the wrong sha256: expected {SHA256[:8]}..., nothing was kept. {hint}"
    )
    publish(monkeypatch, url := f"{server}/absent/{NAME}")
    assert refusal(calr_home) == f"{url} answers 404 Not Found. {hint}"
    publish(monkeypatch, url := f"{server}/short/{NAME}")
    assert refusal(calr_home) == f"{url} broke off after 1000 of {len(CONTENT)} bytes. {hint}"


def test_unreachable_server(calr_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: refused at once
        publish(monkeypatch, url := f"http://127.0.0.1:{unused.getsockname()[1]}/{NAME}")
        assert refusal(calr_home).startswith(f"cannot reach {url}: Connection refused. Try again, ")


def test_unknown_host(calr_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    publish(monkeypatch, url := f"http://nowhere.invalid/{NAME}")  # reserved never to resolve
    assert refusal(calr_home).startswith(f"cannot reach {url}: ")


def test_silent_server_is_given_up(calr_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(released_weights, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        publish(monkeypatch, url := f"http://127.0.0.1:{mute.getsockname()[1]}/{NAME}")
        assert refusal(calr_home).startswith(f"cannot reach {url}: timed out. ")


def test_disk_that_takes_no_more(calr_home: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the size of files stands for the full disk: both fail in the middle of a write."""
    resource = pytest.importorskip("resource")
    publish(monkeypatch, f"{server}/right/{NAME}")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(CONTENT) // 2, limits[1]))
    try:
        line = refusal(calr_home)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert line == (
        f"cannot write {calr_home}/weights/{NAME}: File too large. "
        "Free some space there, or point CALR_HOME at another folder"
    )


def test_cache_folder_that_is_a_file(calr_home: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, f"{server}/right/{NAME}")
    calr_home.write_text("in the way")
    with pytest.raises(WeightsError, match=rf"^cannot write {calr_home}/weights/{NAME}: Not a directory\. "):
        fetch_pretrained("resnet18", SilentReporter())


def test_interruption_leaves_nothing(calr_home: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, f"{server}/right/{NAME}")

    class Impatient(Recorder):
        def advance(self, count: int = 1, **figures: float) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_pretrained("resnet18", Impatient())
    assert list((calr_home / "weights").iterdir()) == []


def test_unknown_arch() -> None:
    with pytest.raises(ConfigError, match="unknown arch 'vgg'"):
        fetch_pretrained("vgg", SilentReporter())


def test_every_arch_has_a_release_whose_name_starts_its_hash() -> None:
    assert set(RELEASES) == set(ARCHS)
    for release in RELEASES.values():
        assert release.url.startswith("https://")
        assert release.file_name.endswith(f"-{release.sha256[:8]}.pth")
        assert int(release.sha256, 16)
    assert len(RELEASES["resnet50"].sha256) == 64
    assert RELEASES["resnet50"].file_name == "resnet50-0676ba61.pth"
