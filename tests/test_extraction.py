from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from calr_cli import extraction
from calr_cli.data.augment import normalise
from calr_cli.data.images import read_pixels
from calr_cli.data.loaders import ImageFiles
from calr_cli.errors import DataError
from calr_cli.events import Progress, SilentReporter
from calr_cli.extraction import extract_features
from calr_cli.models.encoder import Encoder
from calr_cli.types import FloatArray, ImageSet
from tests.support.image_sets import make_image_set


class Counted(SilentReporter):
    """Adds up what a long step says it has done."""

    def __init__(self) -> None:
        self.title, self.total, self.done = "", 0, 0

    @contextmanager
    def progress(self, title: str, total: int, unit: str = "", done: int = 0) -> Iterator[Progress]:
        self.title, self.total = f"{title} ({unit})", total
        yield self

    def advance(self, count: int = 1, **figures: float) -> None:
        self.done += count


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return make_image_set(tmp_path_factory.mktemp("images"), 11)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder("resnet18")


def extract(
    encoder: Encoder, images: ImageSet, batch_size: int, reporter: Counted | None = None
) -> FloatArray:
    return extract_features(
        encoder,
        ImageFiles(images, 32, 16, 2),
        batch_size=batch_size,
        reporter=reporter or Counted(),
    )


def test_each_image_s_own_feature_in_record_order(encoder: Encoder, images: ImageSet) -> None:
    features = extract(encoder, images, 4)
    assert features.shape == (11, encoder.feature_dim)
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    with torch.no_grad():
        for path, feature in zip(images.paths, features, strict=True):
            pixels = torch.tensor(read_pixels(images.root / path, 32, 16))[None]
            np.testing.assert_allclose(encoder(normalise(pixels))[0], feature, atol=1e-5)
    assert np.abs(features[1:] - features[:-1]).max(axis=1).min() > 1e-4  # they really differ


@pytest.mark.parametrize("batch_size", [1, 5, 11, 64])
def test_the_batch_size_does_not_matter(encoder: Encoder, images: ImageSet, batch_size: int) -> None:
    np.testing.assert_allclose(extract(encoder, images, batch_size), extract(encoder, images, 4), atol=1e-5)


def test_evaluation_mode_whatever_it_was_in_and_no_statistics_move(images: ImageSet) -> None:
    encoder = Encoder("resnet18").train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    extract(encoder, images, 4)
    assert not encoder.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_progress_is_in_images(encoder: Encoder, images: ImageSet) -> None:
    reporter = Counted()
    extract(encoder, images, 4, reporter)
    assert (reporter.title, reporter.total, reporter.done) == ("features (images)", 11, 11)


def test_no_images(encoder: Encoder, images: ImageSet) -> None:
    nothing = images.subset(np.empty(0, np.int64))
    assert extract(encoder, nothing, 4).shape == (0, encoder.feature_dim)


def test_an_unreadable_image_is_named(encoder: Encoder, tmp_path: Path) -> None:
    images = make_image_set(tmp_path, 3)
    (tmp_path / "001.png").unlink()
    with pytest.raises(DataError, match=r"001\.png: the image is gone"):
        extract(encoder, images, 2)


def test_a_last_batch_is_filled_up_with_black_images() -> None:
    pixels = torch.randint(1, 256, (3, 4, 2, 3), dtype=torch.uint8)
    filled = extraction._filled_up(pixels, 5)
    assert filled.shape == (5, 4, 2, 3)
    assert torch.equal(filled[:3], pixels)
    assert not filled[3:].any()
    assert torch.equal(extraction._filled_up(pixels, 3), pixels)


@pytest.mark.gpu
def test_a_gpu_sees_one_size_of_batch(encoder: Encoder, images: ImageSet) -> None:
    on_gpu, sizes = copy.deepcopy(encoder).cuda(), set()
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: sizes.add(len(inputs[0])) if isinstance(module, Encoder) else None
    )
    features = extract(on_gpu, images, 4)
    hook.remove()
    assert sizes == {4}
    np.testing.assert_allclose(features, extract(encoder, images, 4), atol=1e-2)
