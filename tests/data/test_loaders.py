from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from calr_cli.data.images import read_pixels
from calr_cli.data.loaders import pixel_batches
from calr_cli.errors import DataError
from calr_cli.types import ImageSet
from tests.support.image_sets import make_image_set


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return make_image_set(tmp_path_factory.mktemp("images"), 30)


def decoding_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_each_batch_in_turn_each_image_in_its_place(images: ImageSet, workers: int) -> None:
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 30, size) for size in (4, 1, 7, 4, 4, 9)]  # repeats too
    blocks = list(pixel_batches(images, batches, height=12, width=6, workers=workers))
    assert len(blocks) == len(batches)
    for batch, block in zip(batches, blocks, strict=True):
        assert block.dtype == torch.uint8
        expected = [read_pixels(images.root / images.paths[i], 12, 6) for i in batch]
        np.testing.assert_array_equal(block, np.stack(expected))
    assert decoding_threads() == []


def test_no_batches() -> None:
    empty = ImageSet(Path(), (), np.empty(0, np.int64), np.empty(0, np.int64), ())
    assert list(pixel_batches(empty, [], height=4, width=4, workers=2)) == []


def test_an_unreadable_image_is_an_error_when_its_batch_is_due(tmp_path: Path) -> None:
    images = make_image_set(tmp_path, 8)
    (tmp_path / "005.png").write_bytes(b"")
    batches = [np.array([0, 1]), np.array([2, 3]), np.array([4, 5]), np.array([6, 7])]
    blocks = pixel_batches(images, batches, height=8, width=4, workers=2)
    assert next(blocks).shape == next(blocks).shape == (2, 3, 8, 4)  # though decoded ahead already
    with pytest.raises(DataError, match=r"005\.png: cannot be read \(not an image\)"):
        next(blocks)
    assert decoding_threads() == []
    assert list(blocks) == []


def test_leaving_early_leaves_no_threads(images: ImageSet) -> None:
    blocks = pixel_batches(images, [np.arange(30)] * 50, height=64, width=32, workers=3)
    next(blocks)
    assert decoding_threads()
    blocks.close()
    assert decoding_threads() == []


def test_few_batches_are_decoded_ahead(tmp_path: Path) -> None:
    # A long epoch must not be read into memory: an image that appears in time is still found.
    images = make_image_set(tmp_path, 40)
    late = (tmp_path / "039.png").read_bytes()
    (tmp_path / "039.png").unlink()
    blocks = pixel_batches(images, [np.array([i]) for i in range(40)], height=8, width=4, workers=4)
    for _ in range(20):
        next(blocks)
    (tmp_path / "039.png").write_bytes(late)
    assert len(list(blocks)) == 20
