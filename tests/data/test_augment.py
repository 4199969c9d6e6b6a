from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, ks_2samp
from torchvision.transforms import Normalize

from calr_cli.data.augment import HALF, IMAGENET_MEAN, Augmentation, Draws, normalise
from tests.support.augmentation_oracle import augmented, draw_rectangle

NOTHING = Augmentation(flip_probability=0, padding=0, erasing_probability=0)
UNLIKELY = 1e-3


def noise(count: int, height: int = 16, width: int = 8) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    )


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def assert_network_input(found: torch.Tensor, pixels: torch.Tensor) -> None:
    count, height, width, _ = pixels.shape
    assert found.dtype == torch.float32
    assert found.shape == (count, 3, height, width)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_normalise_is_torchvision_s() -> None:
    pixels = noise(4)
    found = normalise(pixels)
    assert_network_input(found, pixels)
    expected = Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(pixels.permute(0, 3, 1, 2) / 255)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_defaults_are_the_method_s() -> None:
    assert Augmentation() == Augmentation(0.5, 10, 0.5, (0.02, 0.4), 0.3)


def test_no_augmentation_is_the_evaluation_transform() -> None:
    pixels = noise(5)
    assert torch.equal(NOTHING.apply(pixels, NOTHING.draw(5, 16, 8, rng())), normalise(pixels))


@pytest.mark.parametrize(("height", "width"), [(16, 8), (9, 24), (5, 5)])
@pytest.mark.parametrize("padding", [0, 1, 10])  # less and more than the image is wide
def test_every_image_changes_as_its_own_draws_say(height: int, width: int, padding: int) -> None:
    augmentation = replace(Augmentation(), padding=padding)
    pixels = noise(60, height, width)
    before = pixels.clone()
    draws = augmentation.draw(60, height, width, rng(3))
    assert 0 < draws.flipped.sum() < 60
    assert 0 < (draws.rectangles[:, 2] > 0).sum() < 60
    found = augmentation.apply(pixels, draws)
    assert_network_input(found, pixels)
    assert torch.equal(pixels, before)
    for image, source, flipped, corner, rectangle in zip(
        found.numpy(), pixels.numpy(), draws.flipped, draws.corners, draws.rectangles, strict=True
    ):
        expected = augmented(source, padding, flipped, tuple(corner), tuple(rectangle))
        np.testing.assert_allclose(image, expected, rtol=0, atol=1e-6)


def test_border_and_erased_values_are_exact() -> None:
    """Black is normalised, the mean is not: neither is blended with what it covers."""
    augmentation = replace(NOTHING, padding=2)
    draws = Draws(np.array([False]), np.array([[0, 0]]), np.array([[1, 3, 4, 2]]))
    (found,) = augmentation.apply(torch.full((1, 8, 6, 3), 200, dtype=torch.uint8), draws)
    white, black = (
        normalise(torch.full((1, 1, 1, 3), value, dtype=torch.uint8))[0, :, 0, 0] for value in (200, 0)
    )
    expected = white[:, None, None].repeat(1, 8, 6)
    expected[:, :2] = expected[:, :, :2] = black[:, None, None]
    expected[:, 1:5, 3:5] = torch.tensor(IMAGENET_MEAN)[:, None, None]
    assert torch.equal(found, expected)


def test_other_statistics_change_the_border_and_not_what_is_erased() -> None:
    """TransReID-SSL normalises by 0.5 and erases with ImageNet's mean."""
    augmentation = replace(NOTHING, padding=2, statistics=HALF)
    draws = Draws(np.array([False]), np.array([[0, 0]]), np.array([[4, 4, 2, 2]]))
    (found,) = augmentation.apply(torch.full((1, 8, 6, 3), 255, dtype=torch.uint8), draws)
    assert torch.equal(found[:, :2], torch.full((3, 2, 6), -1.0))
    assert torch.equal(found[:, 2:4, 2:], torch.full((3, 2, 4), 1.0))
    assert torch.equal(found[:, 4:6, 4:6], torch.tensor(IMAGENET_MEAN)[:, None, None].expand(3, 2, 2))
    assert torch.equal(normalise(torch.zeros(1, 1, 1, 3, dtype=torch.uint8), HALF), -torch.ones(1, 3, 1, 1))


def test_a_part_of_a_batch_changes_as_in_the_whole() -> None:
    """So devices that share a batch draw for all of it and apply their own part."""
    augmentation, pixels = Augmentation(), noise(20, 24, 12)
    draws = augmentation.draw(20, 24, 12, rng())
    whole = augmentation.apply(pixels, draws)
    parts = [
        augmentation.apply(pixels[part], draws.part(part))
        for part in (slice(0, 7), slice(7, 8), slice(8, 20))
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_draws_follow_from_the_generator_alone() -> None:
    torch.manual_seed(5)
    first, again, other = (Augmentation().draw(50, 24, 12, rng(seed)) for seed in (1, 1, 2))
    for name in ("flipped", "corners", "rectangles"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert (getattr(first, name) != getattr(other, name)).any()


def test_half_of_the_images_are_flipped_each_by_its_own_draw() -> None:
    flipped = Augmentation().draw(20_000, 64, 32, rng()).flipped
    assert flipped.mean() == pytest.approx(0.5, abs=0.012)
    assert (flipped[1:] == flipped[:-1]).mean() == pytest.approx(0.5, abs=0.012)
    assert Augmentation(flip_probability=0.2).draw(20_000, 64, 32, rng()).flipped.mean() == pytest.approx(
        0.2, abs=0.01
    )


def test_every_crop_of_the_padded_image_is_equally_likely() -> None:
    corners = Augmentation(padding=2).draw(20_000, 64, 32, rng()).corners
    counts = np.zeros((5, 5))
    np.add.at(counts, tuple(corners.T), 1)
    assert counts.sum() == 20_000
    assert chisquare(counts, axis=None).pvalue > UNLIKELY
    default = Augmentation().draw(2000, 64, 32, rng()).corners
    assert (default.min(), default.max()) == (0, 20)


@pytest.mark.parametrize(("height", "width"), [(256, 128), (64, 64), (24, 60)])
def test_rectangles_are_distributed_as_the_method_words_them(height: int, width: int) -> None:
    count = 20_000
    rectangles = Augmentation().draw(count, height, width, rng()).rectangles
    erased = rectangles[:, 2] > 0
    assert erased.mean() == pytest.approx(0.5, abs=0.012)
    assert (erased[1:] == erased[:-1]).mean() == pytest.approx(0.5, abs=0.012)
    y, x, h, w = rectangles[erased].T

    oracle = rng(99)
    drawn = [draw_rectangle(height, width, oracle) for _ in range(count // 2)]
    expected_y, expected_x, expected_h, expected_w = np.array([one for one in drawn if one is not None]).T
    for found, expected in (
        (h, expected_h),
        (w, expected_w),
        (h * w, expected_h * expected_w),
        (h / w, expected_h / expected_w),
        (y, expected_y),
        (x, expected_x),
        (y / (height - h), expected_y / (height - expected_h)),  # places given sizes
        (x / (width - w), expected_x / (width - expected_w)),
        (x * w, expected_x * expected_w),
    ):
        assert ks_2samp(found, expected).pvalue > UNLIKELY

    # Exact but for the rounding of each side to a whole pixel.
    assert ((h + 0.5) * (w + 0.5) >= 0.02 * height * width).all()
    assert ((h - 0.5) * (w - 0.5) <= 0.4 * height * width).all()
    assert ((h + 0.5) / (w - 0.5) >= 0.3).all()
    assert ((h - 0.5) / (w + 0.5) <= 1 / 0.3).all()
    # Anywhere it fits, edges among it; never as high or as wide as the image.
    assert h.max() < height
    assert w.max() < width
    assert y.min() == x.min() == 0
    assert (y + h).max() == height
    assert (x + w).max() == width


def test_certain_erasing_and_one_that_never_fits() -> None:
    always = replace(NOTHING, erasing_probability=1.0)
    assert (always.draw(500, 64, 32, rng()).rectangles[:, 2:] > 0).all()
    # Larger than the image in every try: it is left whole rather than tried for ever.
    never = replace(always, erasing_area=(2.0, 3.0))
    assert not never.draw(5, 8, 8, rng()).rectangles[:, 2:].any()


@pytest.mark.gpu
def test_a_gpu_gives_the_same_values_and_the_host_does_not_wait() -> None:
    augmentation, pixels = Augmentation(), noise(70, 64, 32)
    draws = augmentation.draw(70, 64, 32, rng())
    on_gpu = pixels.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found, plain = augmentation.apply(on_gpu, draws), normalise(on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_network_input(found, pixels)
    torch.testing.assert_close(found.cpu(), augmentation.apply(pixels, draws), rtol=0, atol=1e-6)
    torch.testing.assert_close(plain.cpu(), normalise(pixels), rtol=0, atol=1e-6)
