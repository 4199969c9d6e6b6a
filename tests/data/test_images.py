from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode, Resize

from calr_cli.data.images import open_image, read_pixels
from calr_cli.errors import DataError

REPLACE = ". Replace or delete it and run `calr prepare-data` again"


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("size", [(128, 64), (64, 32), (300, 7), (5, 5), (130, 64)])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_resizes_as_torchvision_does(tmp_path: Path, size: tuple[int, int], suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(noise(*size)).save(path)
    pixels = read_pixels(path, 128, 64)
    with Image.open(path) as image:
        resized = Resize((128, 64), InterpolationMode.BICUBIC)(image.convert("RGB"))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, np.asarray(resized))


def test_channels_are_red_green_blue_and_rows_are_rows(tmp_path: Path) -> None:
    array = np.zeros((4, 2, 3), np.uint8)
    array[1, 1] = 10, 20, 30
    Image.fromarray(array).save(tmp_path / "a.png")
    pixels = read_pixels(tmp_path / "a.png", 4, 2)
    assert pixels.shape == (4, 2, 3)
    assert pixels[1, 1].tolist() == [10, 20, 30]


def test_grey_palette_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    colour = noise(6, 5)
    grey = colour[:, :, 0]
    alpha = np.dstack([colour, noise(6, 5)[:, :, 1]])  # colours count as they are, seen through or not
    path = tmp_path / "a.png"
    for array, expected in ((grey, np.dstack([grey] * 3)), (alpha, colour)):
        Image.fromarray(array).save(path)
        np.testing.assert_array_equal(read_pixels(path, 6, 5), expected)
    palette = Image.fromarray(colour).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    palette.save(path, transparency=bytes(range(0, 160, 10)))
    expected = np.asarray(palette.convert("RGB"))
    with Image.open(path) as image:
        assert image.mode == "P"
    np.testing.assert_array_equal(read_pixels(path, 6, 5), expected)
    for mode in ("1", "LA", "CMYK"):
        other = tmp_path / "a.tif"
        Image.fromarray(grey).convert(mode).save(other)
        assert read_pixels(other, 6, 5).shape == (6, 5, 3)


def test_the_file_is_closed_at_once(tmp_path: Path) -> None:
    Image.fromarray(noise(6, 5)).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        image = open_image(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    assert image.mode == "RGB"
    assert image.getpixel((0, 0)) == tuple(noise(6, 5)[0, 0])


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_pixels(path, 8, 4)
    (line,) = caught.value.lines()
    return line.replace(str(path), "FILE")


def test_a_missing_image(tmp_path: Path) -> None:
    expected = "FILE: the image is gone. Restore it, or run `calr prepare-data` again"
    assert refusal(tmp_path / "a.jpg") == expected


@pytest.mark.parametrize("content", [b"", b"these are words, not an image", bytes(500)])
def test_what_is_not_an_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert refusal(tmp_path / "a.jpg") == f"FILE: cannot be read (not an image){REPLACE}"


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_image(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise(64, 32)).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    line = refusal(path)
    assert line.startswith("FILE: cannot be read (")
    assert line.endswith(f"){REPLACE}")
    assert "truncated" in line


def test_a_folder_and_a_file_that_must_not_be_read(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"FILE: cannot be read (Is a directory){REPLACE}"


@pytest.mark.filterwarnings("ignore")  # Pillow's remarks on odd metadata
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF"])
def test_damage_anywhere_is_an_error_about_the_file_or_an_image(tmp_path: Path, kind: str) -> None:
    # Decoders stumble over damage in many ways (a TypeError among them): none may escape.
    buffer = io.BytesIO()
    Image.fromarray(noise(12, 9)).save(buffer, kind)
    content, rng, path = buffer.getvalue(), np.random.default_rng(1), tmp_path / "a.jpg"
    damaged = [content[:n] for n in range(0, len(content), max(1, len(content) // 40))]
    for _ in range(120):
        spoilt = bytearray(content)
        for place in rng.integers(0, min(len(content), 200), 3):
            spoilt[place] = rng.integers(0, 256)
        damaged.append(bytes(spoilt))
    problems = []
    for version in damaged:
        path.write_bytes(version)
        try:
            assert read_pixels(path, 8, 4).shape == (8, 4, 3)
        except DataError as error:
            problems.append(str(error))
    assert len(problems) > 30
    assert all(problem.startswith(f"{path}: cannot be read (") for problem in problems)
