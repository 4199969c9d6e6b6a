"""Every way in which a download can go wrong, against a server on this machine."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from calr_cli import downloads, web
from calr_cli.downloads import Digest, DriveFile, DriveFolderFile, Source, adopt_file, download
from calr_cli.errors import DataError
from calr_cli.events import Progress
from tests.support.heard import Heard
from tests.support.site import (
    QUOTA_PAGE,
    Reply,
    Site,
    chunked,
    folder_page,
    hang_up,
    other_range,
    page,
    question_page,
    ranges,
    redirect,
    stand_in_for_drive,
    status,
    trickle,
    unmeasured,
    whole,
)

CONTENT = bytes(range(256)) * 1200  # several chunks
DIGEST = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())
HALF = 2 * web.CHUNK_BYTES
HINT = "Get it by hand"

pytestmark = pytest.mark.usefixtures("waits")


def wrong(content: bytes) -> str:
    found = hashlib.sha256(content).hexdigest()
    return f"has the wrong sha256: {found[:8]} instead of {DIGEST.hexadecimal[:8]}"


class Recorder(Heard):
    """Remembers what was counted, too."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: list[int] = []

    def progress(
        self, title: str, total: int, unit: str = "", done: int = 0
    ) -> AbstractContextManager[Progress]:
        super().progress(title, total, unit)
        self.counted.append(0)

        @contextmanager
        def counting() -> Iterator[Progress]:
            yield self

        return counting()

    def advance(self, count: int = 1, **figures: float) -> None:
        self.counted[-1] += count


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights.pth"


def part_of(target: Path) -> Path:
    return target.with_name("weights.pth.part")


def fetch(sources: Source | Sequence[Source], target: Path, check: downloads.Check = DIGEST) -> Recorder:
    """Download, and leave nothing but the file."""
    several = [sources] if isinstance(sources, str | DriveFile | DriveFolderFile) else sources
    recorder = Recorder()
    download(several, target, check, "downloading", recorder, DataError, HINT)
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]
    return recorder


def refusal(sources: Source | Sequence[Source], target: Path, check: downloads.Check = DIGEST) -> list[str]:
    """The error lines; nothing has the file's name."""
    with pytest.raises(DataError) as error:
        fetch(sources, target, check)
    assert not target.exists()
    assert error.value.hint == HINT
    return list(error.value.problems)


def test_counts_every_byte_and_asks_once(site: Site, target: Path) -> None:
    recorder = fetch(site.put("/file", ranges(CONTENT)), target)
    assert recorder.steps == [f"downloading: {len(CONTENT)} bytes"]
    assert recorder.counted == [len(CONTENT)]
    assert recorder.notes == []
    assert site.asked == [("/file", None)]
    assert site.headers["Accept-Encoding"] == "identity"  # bytes of the file, whatever the server could do


def test_a_right_file_is_left_alone(site: Site, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    fetch(site.put("/file", status(404)), target)
    assert site.asked == []


def test_a_wrong_file_under_the_name_is_replaced(site: Site, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"damaged")
    fetch(site.put("/file", ranges(CONTENT)), target)


@pytest.mark.parametrize(
    "reply",
    [unmeasured(CONTENT), chunked(CONTENT), trickle(CONTENT, 6, 0.05)],
    ids=["without a length", "chunked", "slow"],
)
def test_ways_to_send_a_file(site: Site, target: Path, reply: Reply) -> None:
    assert fetch(site.put("/file", reply), target).counted == [len(CONTENT)]


def test_redirections_are_followed_and_keep_the_range(site: Site, target: Path) -> None:
    elsewhere = site.put("/elsewhere", ranges(CONTENT))
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT[:HALF])
    fetch(site.put("/file", redirect(elsewhere)), target)
    assert site.asked == [("/file", f"bytes={HALF}-"), ("/elsewhere", f"bytes={HALF}-")]


def test_a_dropped_connection_is_taken_up_where_it_broke(
    site: Site, target: Path, waits: list[float]
) -> None:
    url = site.put("/file", ranges(CONTENT, ends=HALF), ranges(CONTENT))
    recorder = fetch(url, target)
    assert [asked for _, asked in site.asked] == [None, f"bytes={HALF}-"]
    assert recorder.counted == [HALF, len(CONTENT) - HALF]
    assert recorder.steps == [
        f"downloading: {len(CONTENT)} bytes",
        f"downloading: {len(CONTENT) - HALF} bytes",
    ]
    assert recorder.notes == [
        f"{url} broke off after {HALF:,} of {len(CONTENT):,} bytes: trying again in 1 s",
        f"downloading: going on after {HALF / 1e6:.1f} MB",
    ]
    assert waits == [1]


def test_a_later_call_goes_on_where_the_last_one_stopped(site: Site, target: Path) -> None:
    refusal(site.put("/file", ranges(CONTENT, ends=HALF)), target)
    assert part_of(target).read_bytes() == CONTENT[:HALF]
    site.asked.clear()
    fetch(site.put("/file", ranges(CONTENT)), target)
    assert site.asked == [("/file", f"bytes={HALF}-")]


def test_interruption_keeps_what_has_arrived(site: Site, target: Path) -> None:
    class Impatient(Recorder):
        def advance(self, count: int = 1, **figures: float) -> None:
            raise KeyboardInterrupt

    url = site.put("/file", ranges(CONTENT))
    with pytest.raises(KeyboardInterrupt):
        download([url], target, DIGEST, "downloading", Impatient(), DataError)
    assert not target.exists()
    assert CONTENT.startswith(part_of(target).read_bytes())
    fetch(url, target)
    assert site.asked[-1] == ("/file", f"bytes={web.CHUNK_BYTES}-")


def test_a_connection_that_drops_all_the_time_gets_there(site: Site, target: Path) -> None:
    """Attempts are counted from the last one that brought something new."""
    steps = range(web.CHUNK_BYTES, len(CONTENT), web.CHUNK_BYTES)
    assert len(steps) >= downloads.ATTEMPTS
    fetch(site.put("/file", *(ranges(CONTENT, ends=end) for end in steps), ranges(CONTENT)), target)


def test_a_server_that_ignores_ranges_begins_anew(site: Site, target: Path) -> None:
    recorder = fetch(site.put("/file", whole(CONTENT, ends=HALF), whole(CONTENT)), target)
    assert recorder.counted[-1] == len(CONTENT)


def test_a_range_that_was_not_asked_for_is_not_put_together(site: Site, target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT[:HALF])
    fetch(site.put("/file", other_range(CONTENT), ranges(CONTENT)), target)
    assert [asked for _, asked in site.asked] == [f"bytes={HALF}-", None]


def test_what_is_whole_already_only_gets_its_name(site: Site, target: Path) -> None:
    """A run that was killed between the last byte and the renaming."""
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT)
    recorder = fetch(site.put("/file", ranges(CONTENT)), target)
    assert sum(recorder.counted) == 0


@pytest.mark.parametrize("old", [b"of another file" * 99, CONTENT + b"and more"])
def test_a_beginning_of_another_file_is_thrown_away(site: Site, target: Path, old: bytes) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(old)
    recorder = fetch(site.put("/file", ranges(CONTENT)), target)
    assert recorder.counted[-1] == len(CONTENT)


def test_wrong_bytes(site: Site, target: Path) -> None:
    url = site.put("/file", ranges(CONTENT[::-1]))
    assert refusal(url, target) == [f"{url} {wrong(CONTENT[::-1])}, nothing was kept"]
    assert not part_of(target).exists()
    assert len(site.asked) == 1


def test_wrong_bytes_after_every_break_come_to_an_end(site: Site, target: Path) -> None:
    other = CONTENT[::-1]
    url = site.put("/file", *(ranges(other, ends=HALF), ranges(other)) * 5)
    assert refusal(url, target) == [f"{url} {wrong(other)}, nothing was kept"]
    assert len(site.asked) == 4


def test_md5_and_first_digits(site: Site, target: Path) -> None:
    md5 = hashlib.md5(CONTENT).hexdigest()
    fetch(site.put("/file", ranges(CONTENT)), target, Digest("md5", md5[:8]))
    assert Digest.of_file(target, "md5") == Digest("md5", md5)
    assert not Digest("md5", md5[1:9]).matches(target)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (status(404), "answers 404 Not Found"),
        (status(403), "answers 403 Forbidden"),
        (page("<html><title>Sign\n in</title>"), "answers with a web page, not the file ('Sign in')"),
        (page(" <!DOCTYPE html>", kind="application/octet-stream"), "answers with a web page, not the file"),
        (page("", kind="TEXT/HTML"), "answers with a web page, not the file"),
        (status(429, retry_after="3600"), "answers 429 Too Many Requests and asks to wait for 3600 seconds"),
    ],
)  # fmt: skip
def test_refusals_are_not_repeated(
    site: Site, target: Path, waits: list[float], reply: Reply, said: str
) -> None:
    url = site.put("/file", reply)
    assert refusal(url, target) == [f"{url} {said}"]
    assert (len(site.asked), waits) == (1, [])
    assert not part_of(target).exists()


@pytest.mark.parametrize("code", web.PASSING)
def test_a_busy_server_is_asked_again_and_in_the_end_given_up(
    site: Site, target: Path, waits: list[float], code: int
) -> None:
    url = site.put("/file", status(code))
    (problem,) = refusal(url, target)
    assert problem.startswith(f"{url} answers {code} ")
    assert len(site.asked) == downloads.ATTEMPTS
    assert waits == [1, 2, 4]


@pytest.mark.parametrize(
    ("retry_after", "wait"),
    [
        ("7", 7),
        ("0", 0),
        ("Sun, 22 Nov 2020 20:00:00 +0000", 0),  # long past
        ("soon", 1),
        ("Sun, 99 Foo", 1),
    ],
)
def test_the_wait_is_the_one_that_the_server_asks_for(
    site: Site, target: Path, waits: list[float], retry_after: str, wait: float
) -> None:
    fetch(site.put("/file", status(503, retry_after=retry_after), ranges(CONTENT)), target)
    assert waits == [wait]


def test_a_date_to_wait_for(site: Site, target: Path, waits: list[float]) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(hours=2))
    (problem,) = refusal(site.put("/file", status(503, retry_after=later)), target)
    assert "answers 503 Service Unavailable and asks to wait for 7" in problem
    assert waits == []


@pytest.mark.parametrize("reply", [hang_up, chunked(CONTENT, finished=False)], ids=["at once", "in a chunk"])
def test_connections_that_break_without_a_count(
    site: Site, target: Path, waits: list[float], reply: Reply
) -> None:
    fetch(site.put("/file", reply, ranges(CONTENT)), target)
    assert waits == [1]


def test_a_silent_server_is_given_up(
    target: Path, site: Site, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "READ_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/file"
        assert refusal(url, target) == [f"cannot reach {url}: timed out"]
    assert len(waits) == downloads.ATTEMPTS - 1


def test_unreachable_servers_are_given_up_at_once(site: Site, target: Path, waits: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: refused at once
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file"
        assert refusal(url, target) == [f"cannot reach {url}: Connection refused"]
    (problem,) = refusal(url := "http://nowhere.invalid/file", target)  # reserved never to resolve
    assert problem.startswith(f"cannot reach {url}: ")
    assert waits == []


def test_what_does_not_speak_http(site: Site, target: Path) -> None:
    def babble(handler: object) -> None:
        handler.wfile.write(b"\x00\x01 not http\r\n\r\n")  # type: ignore[attr-defined]

    url = site.put("/file", babble)
    (problem,) = refusal(url, target)
    assert problem.startswith(f"cannot reach {url}: ")


def test_sources_are_asked_in_order_and_one_of_them_is_enough(site: Site, target: Path) -> None:
    """What the first one gave before it broke off is not fetched again from the second."""
    first = site.put("/first", ranges(CONTENT, ends=HALF))
    second = site.put("/second", status(404))
    third = site.put("/third", ranges(CONTENT))
    recorder = fetch([first, second, third], target)
    rest = f"bytes={HALF}-"
    assert site.asked[0] == ("/first", None)
    assert site.asked[-2:] == [("/second", rest), ("/third", rest)]
    assert sum(recorder.counted) == len(CONTENT)


def test_each_failed_source_has_its_line(site: Site, target: Path) -> None:
    urls = [site.put("/a", status(404)), site.put("/b", page("<html>")), site.put("/c", whole(b"wrong"))]
    assert refusal(urls, target) == [
        f"{urls[0]} answers 404 Not Found",
        f"{urls[1]} answers with a web page, not the file",
        f"{urls[2]} {wrong(b'wrong')}, nothing was kept",
    ]


def test_the_proxy_of_the_environment_is_asked(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy gets the whole address as the path."""
    url = "http://weights.invalid/file"
    site.replies[url] = [ranges(CONTENT)]
    monkeypatch.setenv("http_proxy", site.address)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    fetch(url, target)
    assert site.asked == [(url, None)]


def test_a_proxy_that_is_not_there_is_named(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    url = "http://weights.invalid/file"
    assert refusal(url, target) == [f"cannot reach {url} through the proxy: Connection refused"]


class AnyFile:
    """A check that is no digest."""

    def problem(self, path: Path) -> str:
        return "" if path.stat().st_size == len(CONTENT) else "is of another size"


def test_without_a_digest_nothing_is_put_together(site: Site, target: Path) -> None:
    """Two halves could be of two files, and no check would notice."""
    target.parent.mkdir()
    part_of(target).write_bytes(b"x" * HALF)
    fetch(site.put("/file", ranges(CONTENT, ends=HALF), ranges(CONTENT)), target, AnyFile())
    assert [asked for _, asked in site.asked] == [None, None]


def test_disk_that_takes_no_more(site: Site, target: Path) -> None:
    """A limit on the size of files stands for the full disk: both fail in the middle of a write."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, limits[1]))
    try:
        with pytest.raises(DataError) as error:
            fetch(site.put("/file", ranges(CONTENT)), target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.lines() == [
        f"cannot write {target}: File too large. Free some space there, or make it writable"
    ]
    assert not target.exists()
    fetch(site.put("/file", ranges(CONTENT)), target)


def test_folder_that_is_a_file(site: Site, target: Path) -> None:
    target.parent.write_text("in the way")
    with pytest.raises(DataError, match=rf"^cannot write {target}: "):
        fetch(site.put("/file", ranges(CONTENT)), target)


DOWNLOAD = """
import sys
from pathlib import Path
from calr_cli.downloads import Digest, download
from calr_cli.errors import DataError
from calr_cli.events import SilentReporter
url, target, sha256 = sys.argv[1:]
download([url], Path(target), Digest("sha256", sha256), "downloading", SilentReporter(), DataError)
"""


def test_two_processes_at_once_fetch_it_once(site: Site, target: Path) -> None:
    url = site.put("/file", trickle(CONTENT, 6, 0.1))
    command = [sys.executable, "-c", DOWNLOAD, url, str(target), DIGEST.hexadecimal]
    started = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(timeout=60) for process in started] == [0, 0, 0]
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir() if path.suffix != ".lock"] == [target.name]
    assert len(site.asked) == 1


def test_a_killed_process_holds_up_nobody(site: Site, target: Path) -> None:
    url = site.put("/file", trickle(CONTENT, 4, 0.5), ranges(CONTENT))
    command = [sys.executable, "-c", DOWNLOAD, url, str(target), DIGEST.hexadecimal]
    with subprocess.Popen(command) as process:
        while not (part_of(target).exists() and part_of(target).stat().st_size):
            assert process.poll() is None
        process.kill()
    assert not target.exists()
    fetch(url, target)


def test_waiting_for_another_is_said(site: Site, target: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(handler: object) -> None:
        begun.set()
        assert go_on.wait(60)
        ranges(CONTENT)(handler)  # type: ignore[arg-type]

    class Waiting(Recorder):
        def note(self, text: str) -> None:
            super().note(text)
            go_on.set()

    url = site.put("/file", slow)
    first = threading.Thread(target=fetch, args=(url, target))
    first.start()
    assert begun.wait(60)
    second = Waiting()
    download([url], target, DIGEST, "downloading", second, DataError)
    first.join()
    assert second.notes == ["waiting for another process that fetches weights.pth"]
    assert len(site.asked) == 1


@pytest.fixture
def drive(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    stand_in_for_drive(site, monkeypatch)
    return site


FILE = DriveFile("1" * 33)


def test_small_files_of_google_drive_come_at_once(drive: Site, target: Path) -> None:
    drive.put("/uc", ranges(CONTENT))
    fetch(FILE, target)
    assert drive.asked == [(f"/uc?export=download&id={FILE.id}", None)]
    assert drive.headers["User-Agent"] == "Mozilla/5.0"


def test_large_files_of_google_drive_come_after_a_question(drive: Site, target: Path) -> None:
    """The resource key goes along, and a broken download is taken up."""
    file = DriveFile("1" * 33, "0-key")
    drive.put("/uc", page(question_page("https://drive.usercontent.google.com/download", file.id)))
    drive.put("/download", ranges(CONTENT, ends=web.CHUNK_BYTES), ranges(CONTENT))
    fetch(file, target)
    first, question, *_ = drive.asked
    assert first == (f"/uc?export=download&id={file.id}&resourcekey=0-key", None)
    assert question[0].startswith(f"/download?id={file.id}&export=download&confirm=t")
    assert question[0].endswith("&resourcekey=0-key")
    assert drive.asked[-1] == (question[0], f"bytes={web.CHUNK_BYTES}-")


@pytest.mark.parametrize(
    ("html", "said"),
    [
        (QUOTA_PAGE, "Too many users have viewed or downloaded this file recently."),
        ("<html><title>Sign in</title>", "Cannot retrieve the public link of the file."),
        ('<html>\n<form id="download-form">', ""),
    ],
)
def test_pages_of_google_drive_without_a_file(
    drive: Site, target: Path, waits: list[float], html: str, said: str
) -> None:
    drive.put("/uc", page(html))
    (problem,) = refusal(FILE, target)
    assert problem.startswith(f"{FILE} is refused: {said}")
    assert "\n" not in problem
    assert waits == []


def test_a_file_that_is_not_on_google_drive(drive: Site, target: Path) -> None:
    assert refusal(FILE, target) == [f"{FILE} answers 404 Not Found"]


def test_a_question_that_leads_to_a_page(drive: Site, target: Path) -> None:
    drive.put("/uc", page(question_page("https://drive.usercontent.google.com/download", FILE.id)))
    drive.put("/download", page("<html><title>Sorry</title>"))
    assert refusal(FILE, target) == [f"{FILE} answers with a web page, not the file ('Sorry')"]


FOLDER = DriveFolderFile("2" * 33, "weights.pth.tar")


def test_a_file_of_a_folder_is_found_by_its_name(drive: Site, target: Path) -> None:
    drive.put(
        "/embeddedfolderview", page(folder_page({"other.pth.tar": "3" * 33, "weights.pth.tar": FILE.id}))
    )
    drive.put("/uc", ranges(CONTENT))
    fetch(FOLDER, target)
    assert [path for path, _ in drive.asked] == [
        f"/embeddedfolderview?id={FOLDER.folder_id}",
        f"/uc?export=download&id={FILE.id}",
    ]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (page(folder_page({"other.pth.tar": "3" * 33})), "has no file weights.pth.tar"),
        (status(404), "cannot be listed: Failed to retrieve folder contents"),
        (page("nothing to read"), "cannot be listed: "),
    ],
)
def test_folders_without_the_file(drive: Site, target: Path, reply: Reply, said: str) -> None:
    drive.put("/embeddedfolderview", reply)
    (problem,) = refusal(FOLDER, target)
    assert problem.startswith(f"{FOLDER} {said}")
    assert "\n" not in problem


def test_a_folder_that_cannot_be_reached(drive: Site, target: Path) -> None:
    drive.put("/embeddedfolderview", hang_up)
    (problem,) = refusal(FOLDER, target)
    assert problem.startswith(f"cannot reach {FOLDER}: ")


def test_a_file_fetched_by_hand(tmp_path: Path, target: Path) -> None:
    by_hand = tmp_path / "Downloads" / "weights (1).pth"
    by_hand.parent.mkdir()
    by_hand.write_bytes(CONTENT)
    adopt_file(by_hand, target, DIGEST, DataError)
    assert target.read_bytes() == by_hand.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_wrong_files_fetched_by_hand(tmp_path: Path, target: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(DataError) as error:
            adopt_file(path, target, DIGEST, DataError, HINT)
        assert not target.exists()
        return str(error.value)

    file = tmp_path / "file.pth"
    file.write_bytes(CONTENT[:-1])
    assert refused(file) == f"{file} {wrong(CONTENT[:-1])}. {HINT}"
    assert refused(tmp_path / "absent.pth") == f"no file {tmp_path / 'absent.pth'}"
    assert refused(tmp_path) == f"no file {tmp_path}"
    file.write_bytes(CONTENT)
    target.parent.write_text("in the way")
    assert refused(file).startswith(f"cannot copy {file} to {target}: ")
