from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calr_cli.data import loaders
from calr_cli.data.images import read_pixels
from calr_cli.data.loaders import ImageFiles, PixelSource, StoredPixels
from calr_cli.errors import DataError
from calr_cli.types import ImageSet
from tests.support.image_sets import make_image_set

HEIGHT, WIDTH = 12, 6

Open = Callable[[ImageSet], PixelSource]


def decoded(images: ImageSet) -> np.ndarray:
    return np.stack([read_pixels(images.root / path, HEIGHT, WIDTH) for path in images.paths])


def stored(images: ImageSet) -> StoredPixels:
    return StoredPixels(decoded(images))


def files(workers: int) -> Open:
    return lambda images: ImageFiles(images, HEIGHT, WIDTH, workers)


SOURCES = pytest.mark.parametrize("source", [stored, files(0), files(1), files(4)])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return make_image_set(tmp_path_factory.mktemp("images"), 30)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pixels")]


@SOURCES
def test_each_batch_in_turn_each_image_in_its_place(images: ImageSet, source: Open) -> None:
    pixels, expected = source(images), decoded(images)
    assert (len(pixels), pixels.height, pixels.width) == (30, HEIGHT, WIDTH)
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 30, size) for size in (4, 1, 7, 0, 4, 9)]  # repeats too
    blocks = list(pixels.batches(iter(batches)))
    assert len(blocks) == len(batches)
    for batch, block in zip(batches, blocks, strict=True):
        assert block.dtype == torch.uint8
        assert block.is_contiguous()
        np.testing.assert_array_equal(block, expected[batch])
    assert threads() == []


@SOURCES
def test_a_subset_of_a_subset(images: ImageSet, source: Open) -> None:
    part = source(images).subset(np.array([20, 3, 3, 11, 8])).subset(np.array([3, 0, 1]))
    assert (len(part), part.height, part.width) == (3, HEIGHT, WIDTH)
    (block,) = part.batches([np.array([2, 0, 1])])
    np.testing.assert_array_equal(block, decoded(images)[[3, 11, 20]])


@SOURCES
def test_no_batches(images: ImageSet, source: Open) -> None:
    assert list(source(images).batches([])) == []


def test_no_images() -> None:
    empty = ImageSet(Path(), (), np.empty(0, np.int64), np.empty(0, np.int64), ())
    assert list(files(2)(empty).batches([])) == []


@SOURCES
def test_a_position_that_is_none_is_an_error_not_another_image(images: ImageSet, source: Open) -> None:
    with pytest.raises(IndexError):
        list(source(images).batches([np.array([0, 30])]))
    assert threads() == []


def test_blocks_are_copies_and_the_store_stays_as_it_is(images: ImageSet) -> None:
    pixels = decoded(images)
    pixels.flags.writeable = False  # as a file that is mapped to be read
    first, second = StoredPixels(pixels).batches([np.array([1]), np.array([1])])
    first.zero_()
    np.testing.assert_array_equal(second, pixels[[1]])


def test_an_unreadable_image_is_an_error_when_its_batch_is_due(tmp_path: Path) -> None:
    images = make_image_set(tmp_path, 8)
    (tmp_path / "005.png").unlink()
    batches = [np.array([0, 1]), np.array([2, 3]), np.array([4, 5]), np.array([6, 7])]
    blocks = files(2)(images).batches(batches)
    assert next(blocks).shape == next(blocks).shape == (2, HEIGHT, WIDTH, 3)  # though looked at already
    with pytest.raises(DataError, match=r"005\.png: the image is gone"):
        next(blocks)
    assert threads() == []
    assert list(blocks) == []


@SOURCES
def test_a_user_who_stops_early_or_fails_leaves_no_threads(images: ImageSet, source: Open) -> None:
    def use() -> None:
        for _ in source(images).batches([np.arange(30)] * 50):
            assert threads()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use()
    assert threads() == []


@SOURCES
def test_few_batches_are_made_ready_ahead(images: ImageSet, source: Open) -> None:
    # A long epoch must not be read into memory.
    asked: list[int] = []

    def positions() -> object:
        for i in range(30):
            asked.append(i)
            yield np.array([i])

    blocks = source(images).batches(positions())  # type: ignore[arg-type]
    for done in range(1, 11):
        next(blocks)
        assert len(asked) <= done + 3
    assert len(list(blocks)) == 20


@pytest.mark.gpu
@SOURCES
def test_pinned_for_a_gpu(images: ImageSet, source: Open) -> None:
    for block in source(images).batches([np.arange(30)] * 4, pin=True):
        assert block.is_pinned()
        np.testing.assert_array_equal(block, decoded(images))


def test_rows_gathered_in_parts_are_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def take(pixels: np.ndarray, rows: np.ndarray, *args: Any, **options: Any) -> None:
        taken.append(len(rows))
        real_take(pixels, rows, *args, **options)

    real_take = np.take
    monkeypatch.setattr(np, "take", take)
    monkeypatch.setattr(loaders, "available_cores", lambda: 16)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (50, 128, 64, 3), np.uint8)
    batches = [rng.integers(0, 50, size) for size in (0, 1, 84, 86, 250)]  # of 24 KiB each
    for batch, block in zip(batches, StoredPixels(pixels).batches(batches), strict=True):
        np.testing.assert_array_equal(block, pixels[batch])
    assert sorted(taken) == [0, 1, 43, 43, 62, 62, 63, 63, 84]
    assert threads() == []
