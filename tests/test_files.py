from __future__ import annotations

import errno
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep

import pytest

from calr_cli.files import atomic_write, calr_home, one_at_a_time


def test_a_whole_file_appears_under_its_name_in_folders_made_for_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    with atomic_write(path) as temporary:
        assert temporary.parent == path.parent  # else the last step would be a copy, which can fail midway
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("existed", [True, False])
def test_an_exception_leaves_the_old_file_and_no_other(
    tmp_path: Path, error: type[BaseException], existed: bool
) -> None:
    path = tmp_path / "c.txt"
    if existed:
        path.write_text("old")
    files = {file.name for file in tmp_path.iterdir()}

    def write_half() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert {file.name for file in tmp_path.iterdir()} == files
    assert not existed or path.read_text() == "old"


def test_a_block_that_loses_its_own_file_is_an_error_not_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "c.txt") as temporary:
        temporary.unlink()
    assert not (tmp_path / "c.txt").exists()


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    # Temporary files are private; a model must be readable to those whom the user's umask allows.
    (tmp_path / "plain.txt").write_text("")
    with atomic_write(tmp_path / "c.txt") as temporary:
        temporary.write_text("")
    assert (tmp_path / "c.txt").stat().st_mode == (tmp_path / "plain.txt").stat().st_mode
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "c.txt").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(OSError, match=r"exists|directory"), atomic_write(tmp_path / "a" / "c.txt"):
        pass


def test_home_is_the_variable_s_else_in_the_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALR_HOME", "~/state")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert calr_home() == tmp_path / "state"
    monkeypatch.delenv("CALR_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert calr_home() == tmp_path / "cache" / "calr"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert calr_home() == tmp_path / ".cache" / "calr"
    assert not (tmp_path / ".cache").exists()  # asking makes nothing


def test_one_at_a_time(tmp_path: Path) -> None:
    """Each adds to what it has read; without the lock additions would be lost."""
    path = tmp_path / "deep" / "count"
    waited: list[int] = []

    def add(n: int) -> None:
        with one_at_a_time(path, lambda: waited.append(n)):
            count = int(path.read_text()) if path.exists() else 0
            sleep(0.01)
            path.write_text(str(count + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    assert path.read_text() == "8"
    assert waited
    assert len(set(waited)) == len(waited)


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), one_at_a_time(tmp_path / "a", lambda: None):
        raise ValueError("x")
    waited: list[int] = []
    with one_at_a_time(tmp_path / "a", lambda: waited.append(1)):
        assert waited == []


def test_a_full_disk_is_told_with_what_is_free(tmp_path: Path) -> None:
    def fill() -> None:
        with atomic_write(tmp_path / "c.txt"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as a write says it, without a name

    with pytest.raises(OSError, match=r"the disk or your share of it is full, [0-9,.]+ MB free") as raised:
        fill()
    assert raised.value.filename == str(tmp_path / "c.txt")
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)  # from a process of several
    assert list(tmp_path.iterdir()) == []
