from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calr_cli.errors import DataError
from calr_cli.events import Progress
from calr_cli.prepare import unpacking
from calr_cli.prepare.archives import HOSTILE, Archive
from calr_cli.prepare.unpacking import unpack, unpacked_already
from tests.support.heard import Heard
from tests.support.packed import files_under, packed, write_archive
from tests.support.read_only import read_only_root

GOOD = {"VeRi/image_train/a.jpg": b"a" * 5000, "VeRi/image_test/b.jpg": b"b" * 70, "VeRi/list.txt": b"list"}


def unpacked(archive: Path, reporter: Heard | None = None, folder: Path | None = None) -> Path:
    reporter = reporter or Heard()
    with Archive(archive, reporter) as opened:
        return unpack(opened, folder or archive.parent, reporter)


def seen(folder: Path) -> list[str]:
    """What is in a folder but for the locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
def test_a_folder_beside_the_archive(ending: str, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / f"veri.v1{ending}", GOOD)
    heard = Heard()
    assert unpacked_already(archive, tmp_path) is None
    target = unpacked(archive, heard)
    assert target == tmp_path / "veri.v1" == unpacked_already(archive, tmp_path)
    assert files_under(target) == GOOD
    assert seen(tmp_path) == sorted([archive.name, "veri.v1"])
    assert heard.steps == [f"Reading {archive.name}: 0 bytes", f"Unpacking {archive.name}: 5074 bytes"]
    assert unpacked(archive, heard) == target
    assert len(heard.steps) == 3  # not again


def test_a_top_folder_of_the_same_name_is_not_doubled(tmp_path: Path) -> None:
    target = unpacked(write_archive(tmp_path / "VeRi.zip", GOOD))
    assert {f"VeRi/{name}" for name in files_under(target)} == set(GOOD)
    both = write_archive(tmp_path / "a.zip", {"a/1.jpg": b"1", "b.txt": b"2"})
    assert set(files_under(unpacked(both))) == {"a/1.jpg", "b.txt"}


@pytest.mark.parametrize("name", ["download", ".zip", "...zip", "veri.zip.1"])
def test_files_of_any_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    archive = write_archive(tmp_path / "veri.zip", GOOD).rename(tmp_path / name)
    target = unpacked(archive, folder=tmp_path / "root")
    assert target == tmp_path / "root" / f"{name}-unpacked"
    assert files_under(target) == GOOD


def test_hostile_archives_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    archive = write_archive(tmp_path / "data" / "veri.zip", {**GOOD, "../evil.jpg": b"evil"})
    with pytest.raises(DataError, match=r"'../evil.jpg' would be written outside of its folder"):
        unpacked(archive)
    assert seen(tmp_path / "data") == ["veri.zip"]
    assert not (tmp_path / "evil.jpg").exists()


def test_damaged_and_impossible_archives_leave_nothing(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "veri.zip", {"a.jpg": b"a", "b.jpg": os.urandom(5000)})
    raw = bytearray(archive.read_bytes())
    raw[len(raw) // 2] ^= 255
    archive.write_bytes(raw)
    with pytest.raises(DataError, match=r"veri.zip is damaged"):
        unpacked(archive)
    write_archive(archive, {"a.jpg": b"a", "a.jpg/b.jpg": b"b"})
    with pytest.raises(DataError, match=r"veri.zip cannot be unpacked: (Not a directory|File exists)"):
        unpacked(archive)
    assert seen(tmp_path) == ["veri.zip"]


def test_larger_than_the_disk_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_archive(tmp_path / "veri.zip", GOOD)
    needed = (2 + 1 + 1) * unpacking.BLOCK
    usage = shutil.disk_usage(tmp_path)._replace(free=unpacking.KEEP_FREE + needed - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"veri.zip cannot be unpacked: 0.0 GiB are needed, 0.1 GiB are free"):
        unpacked(archive)
    assert seen(tmp_path) == ["veri.zip"]
    usage = usage._replace(free=unpacking.KEEP_FREE + needed)
    assert files_under(unpacked(archive))


class Cut(Heard):
    """Interrupts after so many bytes."""

    def __init__(self, after: int, error: BaseException) -> None:
        super().__init__()
        self.left, self.error = after, error

    @contextmanager
    def progress(self, title: str, total: int, unit: str = "", done: int = 0) -> Iterator[Progress]:
        with super().progress(title, total, unit) as silent:
            yield self if title.startswith("Unpacking") else silent

    def advance(self, count: int = 1, **figures: float) -> None:
        self.left -= count
        if self.left <= 0:
            raise self.error


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_goes_on_where_it_was_interrupted(
    ending: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_archive(tmp_path / f"veri{ending}", GOOD)
    with pytest.raises((KeyboardInterrupt, DataError)) as stopped:
        unpacked(archive, Cut(5050, error))
    if isinstance(stopped.value, DataError):
        assert "Make room, what is unpacked already is kept" in str(stopped.value)
    (hidden,) = [path for path in tmp_path.iterdir() if path.name.startswith(".unpacking.")]
    assert set(files_under(hidden)) == {"VeRi/image_train/a.jpg", "VeRi/image_test/b.jpg"}
    (hidden / "VeRi/image_test/b.jpg").write_bytes(b"b" * 7)  # killed within a file
    read: list[str] = []
    content = Archive.content
    monkeypatch.setattr(Archive, "content", lambda self, m: read.append(m.name) or content(self, m))
    assert files_under(unpacked(archive)) == GOOD
    assert read == ["VeRi/image_test/b.jpg", "VeRi/list.txt"]
    assert seen(tmp_path) == sorted([archive.name, "veri"])


def test_what_was_begun_with_another_file_of_that_name_is_thrown_away(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "veri.zip", GOOD)
    with pytest.raises(KeyboardInterrupt):
        unpacked(archive, Cut(1, KeyboardInterrupt()))
    (tmp_path / ".unpacking.veri-2-01234567").mkdir()  # of veri-2.zip
    write_archive(archive, {"b.jpg": b"b"})
    assert files_under(unpacked(archive)) == {"b.jpg": b"b"}
    assert seen(tmp_path) == [".unpacking.veri-2-01234567", "veri", "veri.zip"]


@pytest.mark.parametrize("outer", [".zip", ".tar.gz"])
def test_archives_in_archives(outer: str, tmp_path: Path) -> None:
    innermost = packed(".zip", {"image_train/a.jpg": b"a", "__MACOSX/._a.jpg": b"x"}, tmp_path)
    inner = packed(".tar.gz", {"VeRi/train.zip": innermost, "VeRi/image_test/b.jpg": b"b"}, tmp_path)
    archive = write_archive(tmp_path / f"course{outer}", {"sets/veri.tar.gz": inner, "read.me": b"r"})
    target = unpacked(archive)
    assert files_under(target) == {
        "sets/veri/VeRi/train/image_train/a.jpg": b"a",
        "sets/veri/VeRi/image_test/b.jpg": b"b",
        "read.me": b"r",
    }


def test_nested_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each level is within its bound, all together are not; and one that holds itself comes to an end."""
    monkeypatch.setattr("calr_cli.prepare.archives.HARMLESS", 3 * 10**6)
    layer = packed(".zip", {f"{n}.jpg": bytes(10**6) for n in range(2)}, tmp_path)
    archive = write_archive(tmp_path / "veri.zip", {f"{n}.zip": layer for n in range(9)})
    with pytest.raises(DataError, match=rf"1.zip would become far larger .* {HOSTILE}"):
        unpacked(archive)
    assert seen(tmp_path) == ["veri.zip"]
    layer = packed(".zip", {"a.jpg": b"a"}, tmp_path)
    for _ in range(5):
        layer = packed(".zip", {"x.zip": layer}, tmp_path)
    archive = write_archive(tmp_path / "veri.zip", {"x.zip": layer})
    assert list(files_under(unpacked(archive))) == ["x/x/x.zip"]
    evil = packed(".zip", {"../../../evil.jpg": b"evil"}, tmp_path)
    with pytest.raises(DataError, match="would be written outside"):
        unpacked(write_archive(tmp_path / "market.zip", {"x.zip": evil}))
    assert seen(tmp_path) == ["market.zip", "veri", "veri.zip"]


def test_read_only_root_is_unpacked_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    with read_only_root(lambda root: write_archive(root / "veri.zip", GOOD)) as (root, home):
        monkeypatch.setenv("CALR_HOME", str(home))
        heard = Heard()
        target = unpacked(root / "veri.zip", heard)
        assert target.parent == home / "unpacked"
        assert target.name.startswith("veri-")
        assert files_under(target) == GOOD
        assert unpacked_already(root / "veri.zip", root) == target
        assert seen(root) == ["veri.zip"]


def _unpack_in_process(archive: Path, home: str, barrier: object, notes: object) -> None:
    os.environ["CALR_HOME"] = home
    heard = Heard()
    barrier.wait()  # type: ignore[attr-defined]
    unpacked(archive, heard)
    notes.put(heard.notes)  # type: ignore[attr-defined]


def test_processes_at_once(tmp_path: Path) -> None:
    contents = {f"VeRi/image_train/{n}.jpg": os.urandom(2000) for n in range(500)}
    archive = write_archive(tmp_path / "veri.zip", contents)
    context = multiprocessing.get_context("spawn")
    barrier, notes = context.Barrier(3), context.Queue()
    arguments = (archive, os.environ["CALR_HOME"], barrier, notes)
    processes = [context.Process(target=_unpack_in_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    heard = [note for _ in processes for note in notes.get(timeout=100)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert files_under(tmp_path / "veri") == contents
    assert set(heard) <= {"waiting for another process that unpacks veri.zip"}
    assert seen(tmp_path) == ["veri", "veri.zip"]


NAMES = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=4).map("/".join)
NAMES = NAMES.filter(lambda name: name.partition("\0")[0])  # zipfile cannot write a file without a name


@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=6), st.sampled_from([".zip", ".tar"]))
def test_whatever_the_names_nothing_is_written_elsewhere(contents: dict[str, bytes], ending: str) -> None:
    folder = Path(os.environ["CALR_HOME"]).parent / "fuzz"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "root").mkdir(parents=True)
    archive = write_archive(folder / f"veri{ending}", contents)
    with suppress(DataError):  # any other exception fails this test
        target = unpacked(archive, folder=folder / "root")
        assert set(files_under(target).values()) <= set(contents.values())
    assert seen(folder) == ["root", f"veri{ending}"]
    assert set(seen(folder / "root")) <= {"veri"}
