from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calr_cli.data import store
from calr_cli.data.images import read_pixels
from calr_cli.data.loaders import ImageFiles, PixelSource, StoredPixels
from calr_cli.data.store import open_pixels
from calr_cli.distributed import collectives
from calr_cli.errors import DataError
from calr_cli.events import SilentReporter
from calr_cli.types import ImageSet
from tests.support.heard import Heard
from tests.support.image_sets import make_image_set
from tests.support.read_only import read_only_root

COUNT, HEIGHT, WIDTH = 70, 12, 6  # more images than are decoded at a time
SIZE = COUNT * HEIGHT * WIDTH * 3
LINE = (
    "the decoded images need 0.0 MB, which cannot be kept ({}): every image is decoded each time. "
    "Free some space, set CALR_HOME to another folder, or choose another data.cache"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return make_image_set(tmp_path_factory.mktemp("images"), COUNT)


@pytest.fixture
def all_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if these few images were many."""
    monkeypatch.setattr(store, "_SMALL", 0)


def opened(
    images: ImageSet, cache: Any = "disk", reporter: Heard | None = None, **changes: int
) -> PixelSource:
    size = {"height": HEIGHT, "width": WIDTH, "workers": 2, **changes}
    return open_pixels(images, cache=cache, reporter=reporter or Heard(), **size)


def values(pixels: PixelSource) -> np.ndarray:
    (block,) = pixels.batches([np.arange(len(pixels))])
    return block.numpy()


def decoded(images: ImageSet, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.stack([read_pixels(images.root / path, height, width) for path in images.paths])


def stored_files(calr_home: Path) -> list[str]:
    return sorted(path.name for path in (calr_home / "pixels").glob("*"))


@pytest.mark.parametrize("cache", ["disk", "ram", "off"])
def test_the_same_pixels_wherever_they_are_kept(images: ImageSet, calr_home: Path, cache: str) -> None:
    pixels = opened(images, cache)
    assert isinstance(pixels, ImageFiles if cache == "off" else StoredPixels)
    assert (len(pixels), pixels.height, pixels.width) == (COUNT, HEIGHT, WIDTH)
    np.testing.assert_array_equal(values(pixels), decoded(images))
    assert len(stored_files(calr_home)) == (cache == "disk")


def test_a_later_run_finds_the_store_and_needs_no_image(tmp_path: Path, all_said: None) -> None:
    images, reporter = make_image_set(tmp_path / "images", COUNT), Heard()
    expected = decoded(images)
    opened(images)
    shutil.rmtree(tmp_path / "images")
    np.testing.assert_array_equal(values(opened(images, reporter=reporter)), expected)
    assert reporter.notes == reporter.warnings == reporter.steps == []


def test_the_store_is_named_by_what_the_pixels_depend_on(
    images: ImageSet, calr_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(images)
    opened(images)
    assert len(stored_files(calr_home)) == 1
    other_order = images.subset(np.arange(COUNT)[::-1])
    np.testing.assert_array_equal(values(opened(other_order)), decoded(other_order))
    # As many bytes as before, and yet other images.
    np.testing.assert_array_equal(
        values(opened(images, height=WIDTH, width=HEIGHT)), decoded(images, WIDTH, HEIGHT)
    )
    monkeypatch.setattr("PIL.__version__", "0.1")  # another decoder
    opened(images)
    assert len(stored_files(calr_home)) == 4


def test_a_store_of_another_size_is_made_anew(images: ImageSet, calr_home: Path) -> None:
    opened(images)
    (name,) = stored_files(calr_home)
    path = calr_home / "pixels" / name
    assert path.stat().st_size == SIZE
    path.write_bytes(path.read_bytes()[:-1])
    np.testing.assert_array_equal(values(opened(images)), decoded(images))
    assert path.stat().st_size == SIZE


def test_a_store_that_another_user_keeps_to_himself(
    images: ImageSet, calr_home: Path, all_said: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(images)
    monkeypatch.setattr(os, "access", lambda *_: False)
    reporter = Heard()
    np.testing.assert_array_equal(values(opened(images, reporter=reporter)), decoded(images))
    assert len(reporter.notes) == 1  # decoded again


def test_no_images(calr_home: Path) -> None:
    empty = ImageSet(Path(), (), np.empty(0, np.int64), np.empty(0, np.int64), ())
    assert len(opened(empty)) == 0
    assert not calr_home.exists()


@pytest.mark.parametrize("cache", ["disk", "ram"])
def test_says_how_much_and_where_before_it_begins(
    images: ImageSet, calr_home: Path, all_said: None, cache: str
) -> None:
    reporter = Heard()
    opened(images, cache, reporter)
    place = calr_home / "pixels" if cache == "disk" else "memory"
    assert reporter.notes == [f"decoding 70 images once: 0.0 MB in {place}"]
    assert reporter.steps == ["decoding: 70 images"]
    assert reporter.warnings == []


def test_a_few_images_make_no_noise(images: ImageSet) -> None:
    reporter = Heard()
    opened(images, "disk", reporter)
    assert reporter.notes == reporter.steps == []


def test_a_disk_without_room_is_told_before_anything_is_decoded(
    images: ImageSet, calr_home: Path, all_said: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, SIZE - 1))
    reporter = Heard()
    np.testing.assert_array_equal(values(opened(images, "disk", reporter)), decoded(images))
    assert reporter.warnings == [LINE.format(f"{calr_home}/pixels, 0.0 MB free")]
    assert reporter.notes == stored_files(calr_home) == []


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """A limit on the size of files stands for it: both fail in the middle of a write."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("cache", ["disk", "ram"])
def test_a_disk_that_fills_meanwhile(images: ImageSet, calr_home: Path, all_said: None, cache: str) -> None:
    reporter = Heard()
    with full_disk(SIZE - 1):
        pixels = opened(images, cache, reporter)
    place = f"{calr_home}/pixels" if cache == "disk" else "memory"
    assert reporter.warnings == [LINE.format(f"{place}, File too large")]
    assert stored_files(calr_home) == []
    np.testing.assert_array_equal(values(pixels), decoded(images))


def test_a_folder_that_cannot_be_written(all_said: None, monkeypatch: pytest.MonkeyPatch) -> None:
    reporter, made = Heard(), []
    with read_only_root(lambda folder: made.append(make_image_set(folder, COUNT))) as (root, _):
        monkeypatch.setenv("CALR_HOME", str(root))
        (images,) = made
        np.testing.assert_array_equal(values(opened(images, "disk", reporter)), decoded(images))
        assert reporter.warnings == [LINE.format(f"{root}/pixels, Permission denied")]


def test_memory_without_room(images: ImageSet, all_said: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "available_memory", lambda: SIZE)  # all of it, and nothing for the work
    reporter = Heard()
    np.testing.assert_array_equal(values(opened(images, "ram", reporter)), decoded(images))
    assert reporter.warnings == [LINE.format("memory, 0.0 MB free")]


def test_memory_is_freed_with_its_last_user(images: ImageSet) -> None:
    def held() -> int:
        gc.collect()
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return sum("calr-pixels" in str(link.readlink()) for link in links if link.is_symlink())

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc")
    assert held() == 0
    part = opened(images, "ram").subset(np.array([3]))
    np.testing.assert_array_equal(values(part), decoded(images)[[3]])
    assert held() == 1
    del part
    assert held() == 0


def test_without_files_in_memory_the_disk_serves(
    images: ImageSet, calr_home: Path, all_said: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    reporter = Heard()
    np.testing.assert_array_equal(values(opened(images, "ram", reporter)), decoded(images))
    assert (
        reporter.notes[0] == "data.cache: this system has no files in memory, the decoded images go to disk"
    )
    assert len(stored_files(calr_home)) == 1


@pytest.mark.parametrize("cache", ["disk", "ram"])
def test_an_image_that_vanished_or_changed_leaves_no_store(
    tmp_path: Path, calr_home: Path, cache: str
) -> None:
    images = make_image_set(tmp_path / "images", COUNT)
    late = images.root / images.paths[66]
    other = (images.root / images.paths[0]).read_bytes()
    for content, line in (
        (None, "the image is gone. Restore it, or run `calr prepare-data` again"),
        (b"", "cannot be read (not an image). Replace or delete it and run `calr prepare-data` again"),
        # A store bears the digest of the image that was prepared, and would give this one for it for ever.
        (other, "the image has changed since it was prepared. Run `calr prepare-data` again"),
    ):
        late.unlink() if content is None else late.write_bytes(content)
        with pytest.raises(DataError) as caught:
            opened(images, cache)
        assert caught.value.lines() == [f"{late}: {line}"]
        assert stored_files(calr_home) == []


def test_what_a_killed_run_left_is_removed_and_what_another_writes_is_not(
    images: ImageSet, calr_home: Path
) -> None:
    opened(images)
    (name,) = stored_files(calr_home)
    folder = calr_home / "pixels"
    (folder / name).unlink()
    for half, age in (("left", 4000), ("written", 0)):
        (folder / f".{name}.{half}").write_bytes(b"half")
        os.utime(folder / f".{name}.{half}", (time.time() - age,) * 2)
    opened(images)
    assert stored_files(calr_home) == [f".{name}.written", name]


def _use_store(rank: int, port: int, images: ImageSet, results: Any) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    collectives.join()
    found = {}
    for cache in ("disk", "ram"):
        # Only the first process decodes: to the other the images are not there.
        mine = images if rank == 0 else replace(images, root=Path("nowhere"))
        pixels = open_pixels(
            mine, height=HEIGHT, width=WIDTH, workers=1, cache=cache, reporter=SilentReporter()
        )
        found[cache] = values(pixels)
        collectives.barrier()
    results.put((rank, found))
    collectives.leave()


@pytest.mark.distributed
def test_one_process_of_a_machine_decodes_for_all(images: ImageSet, calr_home: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    processes = [context.Process(target=_use_store, args=(r, port, images, results)) for r in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    expected = decoded(images)
    for found in (results.get(), results.get()):
        for cache in ("disk", "ram"):
            np.testing.assert_array_equal(found[1][cache], expected)
    assert len(stored_files(calr_home)) == 1
