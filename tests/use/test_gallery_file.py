"""A gallery in one file: what is kept, what is forgotten, and what happens when something goes wrong."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from calr_cli.errors import DataError
from calr_cli.use import gallery_file
from calr_cli.use.gallery_file import GalleryFile, Maker, Seen, create_gallery, shrink
from tests.support.features import unit_features

DIM = 64
ROWS = unit_features(0, 400, DIM)


def seen(n: int, marker: str = "picture") -> Seen:
    return Seen(
        f"photos/{marker}-{n}.png", f"content {n:03}.", str(n % 2), ROWS[n], f"<{marker} {n}>".encode() * 20
    )


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """Ada has images 0 to 4, somebody without a name 5 to 9."""
    path = tmp_path / "shop.gallery"
    create_gallery(path, Maker("key", "fp32", DIM, "model.pth"))
    with GalleryFile(path, write=True) as file:
        file.keep(file.new_identity("Ada"), map(seen, range(5)))
        file.keep(file.new_identity(), map(seen, range(5, 10)))
    return path


def identities(path: Path) -> list[tuple[int, str | None, int, tuple[str, ...]]]:
    with GalleryFile(path) as file:
        return [(one.number, one.name, one.images, one.cameras) for one in file.identities()]


def test_what_is_kept_is_read_back(gallery: Path) -> None:
    assert identities(gallery) == [(1, "Ada", 5, ("0", "1")), (2, None, 5, ("0", "1"))]
    with GalleryFile(gallery) as file:
        rows = np.concatenate(list(file.blocks(3)))
        paths, numbers = file.images()
        assert [len(block) for block in file.blocks(3)] == [3, 3, 3, 1]
    np.testing.assert_array_equal(rows, ROWS[:10])
    assert (paths[0], numbers) == ("photos/picture-0.png", [1] * 5 + [2] * 5)
    assert [path.name for path in gallery.parent.iterdir()] == ["shop.gallery"], "one file"


def test_the_same_content_is_kept_once(gallery: Path) -> None:
    with GalleryFile(gallery, write=True) as file:
        assert file.keep(2, [seen(0), seen(10)]) == 1
    assert [count for _, _, count, _ in identities(gallery)] == [5, 6]


@pytest.mark.parametrize("killed", [False, True])
def test_nothing_of_what_is_forgotten_is_left_in_the_file(gallery: Path, killed: bool) -> None:
    with GalleryFile(gallery, write=True) as file:
        number = file.new_identity("Grace Hopper")
        file.keep(number, (seen(n, "secret") for n in range(10, 400)))
        file.rename(number, "Amazing Grace")  # the first name must not stay behind either
    whole = gallery.read_bytes()
    traces = [b"Amazing Grace", b"secret-10.png", b"<secret 390>", b"content 390."]
    traces += [ROWS[n].astype(np.float32).tobytes() for n in range(10, 400, 17)]
    assert all(trace in whole for trace in traces)
    with GalleryFile(gallery, write=True) as file:
        assert file.forget(number) == 390
    if killed:  # before the file is written again: the next writer does that
        with GalleryFile(gallery, write=True):
            pass
    else:
        shrink(gallery)
    left = gallery.read_bytes()
    assert not any(trace in left for trace in [*traces, b"Grace"])
    assert len(left) < len(whole)
    assert ROWS[0].astype(np.float32).tobytes() in left
    assert [name for _, name, _, _ in identities(gallery)] == ["Ada", None]
    with GalleryFile(gallery, write=True) as file:
        assert file.new_identity() > number, "nobody gets the number of one who was forgotten"


def test_merge_split_and_rename(gallery: Path) -> None:
    with GalleryFile(gallery, write=True) as file:
        places = [place for place, path, _, _ in file.images_of(2) if "-7" in path]
        new = file.new_identity("Bob")
        file.move(places, new)
        assert [path for _, path, _, _ in file.images_of(new)] == ["photos/picture-7.png"]
        file.merge(2, [new, 1])
        assert len(file.features_of(2)) == 10
    assert identities(gallery) == [(2, "Ada", 10, ("0", "1"))], "the first name of those that there were"


def test_names(gallery: Path) -> None:
    with GalleryFile(gallery, write=True) as file:
        with pytest.raises(
            DataError, match=r"^Ada is the name of identity 1 already\. Give another name, or make"
        ):
            file.rename(2, "Ada")
        with pytest.raises(
            DataError, match=r"^'7' cannot be a name: it is a number, or blank\. Give a word$"
        ):
            file.rename(2, "7")
        assert (file.find("Ada"), file.find("2")) == (1, 2)
        for nobody in ("Bob", "9"):
            with pytest.raises(
                DataError, match=rf"shop\.gallery has no identity {nobody}\. calr gallery list"
            ):
                file.find(nobody)
    assert [name for _, name, _, _ in identities(gallery)] == ["Ada", None]


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.use.test_gallery_file import seen
from calr_cli.use.gallery_file import GalleryFile
with GalleryFile(Path(sys.argv[1]), write=True) as file:
    file._connection.execute("PRAGMA cache_size = 1")  # so that the file itself is written before the end
    file.forget(1)
    for n in range(10, 40):
        file.keep(2, [seen(n)])
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_changes_nothing(gallery: Path) -> None:
    before = identities(gallery)
    done = subprocess.run([sys.executable, "-c", KILLED, gallery], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGKILL
    assert gallery.with_name("shop.gallery-journal").exists(), "the file was half written"
    with GalleryFile(gallery, write=True) as file:  # a writer undoes it
        assert len(file) == 10
    assert identities(gallery) == before
    with closing(sqlite3.connect(gallery)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_reader_after_a_killed_writer(gallery: Path) -> None:
    before = identities(gallery)
    subprocess.run([sys.executable, "-c", KILLED, gallery], cwd=Path(__file__).parents[2], check=False)
    assert identities(gallery) == before


def test_two_writers_take_turns(gallery: Path) -> None:
    def add(n: int) -> None:
        with GalleryFile(gallery, write=True) as file:
            file.keep(2, [seen(n)])

    threads = [threading.Thread(target=add, args=(n,)) for n in range(10, 18)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [count for _, _, count, _ in identities(gallery)] == [5, 13]


def test_one_that_is_being_written(gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery_file, "PATIENCE", 0.05)
    with GalleryFile(gallery, write=True):
        with pytest.raises(
            DataError,
            match=r"shop\.gallery is being written by another command\. Try again when that has ended$",
        ):
            GalleryFile(gallery, write=True).__enter__()
        assert len(identities(gallery)) == 2, "it can be read meanwhile"


def test_a_full_disk(gallery: Path) -> None:
    before = gallery.read_bytes()

    def fill() -> None:
        with GalleryFile(gallery, write=True) as file:
            pages = file._connection.execute("PRAGMA page_count").fetchone()[0]
            file._connection.execute(f"PRAGMA max_page_count = {pages}")
            file.keep(2, (Seen("p", f"more {n}", "", ROWS[n], b"j" * 40_000) for n in range(10, 40)))

    with pytest.raises(
        DataError, match=r"cannot be written: the disk is full\. Nothing was changed\. Make room"
    ):
        fill()
    assert gallery.read_bytes() == before


def test_files_that_are_no_gallery(gallery: Path, tmp_path: Path) -> None:
    def line(path: Path) -> str:
        with pytest.raises(DataError) as caught:
            GalleryFile(path).__enter__()
        return str(caught.value).replace(f"{tmp_path}/", "")

    assert (
        line(tmp_path / "no") == "no gallery no. Make one: calr gallery create " + str(tmp_path / "no")[-2:]
    )
    (tmp_path / "text").write_text("hello")
    assert line(tmp_path / "text") == "text is not a gallery of calr. Give a file of `calr gallery create`"
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE mine (x)")
    assert line(tmp_path / "other.db").startswith("other.db is not a gallery of calr")
    with closing(sqlite3.connect(gallery)) as connection:
        connection.execute("PRAGMA user_version = 2")
    assert line(gallery) == (
        "shop.gallery is a gallery of another version of calr (2, not 1). Take that version, or make the "
        "gallery again"
    )
    with closing(sqlite3.connect(gallery)) as connection:
        connection.execute("PRAGMA user_version = 1")
    content = bytearray(gallery.read_bytes())
    content[100:] = os.urandom(len(content) - 100)
    gallery.write_bytes(content)
    assert line(gallery).startswith("shop.gallery is damaged (")
    with pytest.raises(DataError, match=r"shop\.gallery is there already\. Give another name"):
        create_gallery(gallery, Maker("key", "fp32", DIM, "model.pth"))
