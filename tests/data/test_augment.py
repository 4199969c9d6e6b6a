from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import Normalize

from calr_cli.data.augment import IMAGENET_MEAN, IMAGENET_STD, Augmentation, normalise

NOTHING = Augmentation(flip_probability=0, padding=0, erasing_probability=0)
MEAN = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
STD = torch.tensor(IMAGENET_STD).view(3, 1, 1)


def noise(count: int, height: int = 16, width: int = 8) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (count, 3, height, width), dtype=np.uint8)
    )


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_normalise_is_torchvision_s() -> None:
    pixels = noise(4)
    expected = Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(pixels.float() / 255)
    torch.testing.assert_close(normalise(pixels), expected, rtol=0, atol=1e-6)


def test_defaults_are_the_method_s() -> None:
    assert Augmentation() == Augmentation(0.5, 10, 0.5, (0.02, 0.4), 0.3)


def test_no_augmentation_is_the_evaluation_transform() -> None:
    pixels = noise(5)
    assert torch.equal(NOTHING(pixels, rng()), normalise(pixels))


def test_half_of_the_images_are_flipped_left_to_right_and_only_those() -> None:
    pixels = noise(3000, 3, 4)
    found = replace(NOTHING, flip_probability=0.5)(pixels, rng())
    flipped = (found == normalise(pixels.flip(3))).all(dim=(1, 2, 3))
    kept = (found == normalise(pixels)).all(dim=(1, 2, 3))
    assert (flipped ^ kept).all()
    assert flipped.float().mean().item() == pytest.approx(0.5, abs=0.03)
    # Independent from image to image: no runs, as one draw for several images would make.
    assert (flipped[1:] == flipped[:-1]).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_crops_of_the_padded_image_are_uniform_and_the_padding_is_black_before_normalising() -> None:
    height, width, padding, count = 6, 5, 2, 5000
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([ys + 1, xs + 1, torch.full_like(ys, 9)]).to(torch.uint8)  # 0 is left for padding
    found = replace(NOTHING, padding=padding)(place.expand(count, -1, -1, -1), rng())
    values = ((found * STD + MEAN) * 255).round().int()
    assert torch.allclose((values.float() / 255 - MEAN) / STD, found, atol=1e-5)

    offsets = torch.zeros(2 * padding + 1, 2 * padding + 1)
    padded = torch.nn.functional.pad(place.int(), [padding] * 4)
    for y in range(2 * padding + 1):
        for x in range(2 * padding + 1):
            crop = padded[:, y : y + height, x : x + width]
            offsets[y, x] = (values == crop).all(dim=(1, 2, 3)).sum()
    assert offsets.sum() == count  # every image is one of the 25 crops
    expected = count / offsets.numel()
    chi_squared = float(((offsets - expected) ** 2 / expected).sum())
    assert chi_squared < 51  # 24 degrees of freedom, one in a thousand


def erased_rectangles(
    height: int, width: int, count: int, augmentation: Augmentation
) -> list[tuple[int, int, int, int]]:
    """(y, x, h, w) of each erased image; each is checked to be one full rectangle of the mean's values."""
    pixels = torch.full((count, 3, height, width), 200, dtype=torch.uint8)
    found = augmentation(pixels, rng())
    erased = (found == MEAN).all(dim=1)  # the plain mean, AFTER normalising
    untouched = normalise(pixels[:1])[0]
    rectangles = []
    for image, mask in zip(found, erased, strict=True):
        assert torch.equal(image[:, ~mask], untouched[:, ~mask])
        if mask.any():
            ys, xs = mask.nonzero(as_tuple=True)
            y, x, h, w = ys.min(), xs.min(), ys.max() - ys.min() + 1, xs.max() - xs.min() + 1
            assert mask.sum() == h * w
            rectangles.append(tuple(int(value) for value in (y, x, h, w)))
    return rectangles


def reference_rectangles(height: int, width: int, count: int) -> list[tuple[int, int]]:
    """(h, w) as the method words it: up to 100 tries until it fits."""
    draws, sizes = np.random.default_rng(99), []
    for _ in range(count):
        for _ in range(100):
            area, aspect = draws.uniform(0.02, 0.4) * height * width, draws.uniform(0.3, 1 / 0.3)
            h, w = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if h < height and w < width:
                sizes.append((h, w))
                break
    return sizes


def test_half_of_the_images_lose_a_rectangle_of_the_method_s_size() -> None:
    height, width, count = 64, 32, 1200
    rectangles = erased_rectangles(height, width, count, replace(NOTHING, erasing_probability=0.5))
    assert len(rectangles) / count == pytest.approx(0.5, abs=0.045)
    y, x, h, w = np.array(rectangles).T
    # Exact but for the rounding of each side to a whole pixel.
    assert ((h + 0.5) * (w + 0.5) >= 0.02 * height * width).all()
    assert ((h - 0.5) * (w - 0.5) <= 0.4 * height * width).all()
    assert ((h + 0.5) / (w - 0.5) >= 0.3).all()
    assert ((h - 0.5) / (w + 0.5) <= 1 / 0.3).all()
    expected_h, expected_w = np.array(reference_rectangles(height, width, 5000)).T
    assert (h * w).mean() == pytest.approx((expected_h * expected_w).mean(), rel=0.08)
    assert (h / w).mean() == pytest.approx((expected_h / expected_w).mean(), rel=0.08)
    # Anywhere it fits, edges among it.
    assert y.min() == x.min() == 0
    assert (y + h).max() == height
    assert (x + w).max() == width
    assert (y / (height - h)).mean() == pytest.approx(0.5, abs=0.05)
    assert (x / (width - w)).mean() == pytest.approx(0.5, abs=0.05)


def test_certain_erasing_and_one_that_never_fits() -> None:
    always = replace(NOTHING, erasing_probability=1.0)
    assert len(erased_rectangles(64, 32, 100, always)) == 100
    # Larger than the image in every try: it is left whole rather than tried for ever.
    assert erased_rectangles(8, 8, 5, replace(always, erasing_area=(2.0, 3.0))) == []


def test_draws_follow_from_the_generator_alone() -> None:
    pixels, augmentation = noise(8, 24, 12), Augmentation()
    before = pixels.clone()
    first = augmentation(pixels, rng(1))
    torch.manual_seed(5)
    assert torch.equal(first, augmentation(pixels, rng(1)))
    assert not torch.equal(first, augmentation(pixels, rng(2)))
    assert torch.equal(pixels, before)
    assert first.dtype == torch.float32
    assert first.shape == pixels.shape
