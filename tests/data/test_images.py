from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from zlib import compress, crc32

import numpy as np
import pytest
from PIL import ExifTags, Image
from torchvision.transforms import InterpolationMode, Resize

from calr_cli.data.augment import IMAGENET_MEAN
from calr_cli.data.images import BACKGROUND, open_image, read_pixels
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


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "tif"])
def test_lossless_files_give_the_same_pixels(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(noise(6, 5)).save(tmp_path / f"a.{suffix}", lossless=True)
    np.testing.assert_array_equal(read_pixels(tmp_path / f"a.{suffix}", 6, 5), noise(6, 5))


def test_grey_bilevel_and_palette_images(tmp_path: Path) -> None:
    grey = noise(6, 5)[:, :, 0]
    palette = Image.fromarray(noise(6, 5)).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    for image, expected in (
        (Image.fromarray(grey), np.dstack([grey] * 3)),
        (Image.fromarray(grey > 99), np.dstack([255 * (grey > 99)] * 3)),
        (palette, np.asarray(palette.getpalette()).reshape(-1, 3)[np.asarray(palette)]),
    ):
        image.save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_pixels(tmp_path / "a.png", 6, 5), expected)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk(tmp_path: Path, suffix: str) -> None:
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[..., 1:3] = 255  # magenta and yellow
    Image.fromarray(ink, "CMYK").save(tmp_path / f"a.{suffix}")
    assert np.abs(read_pixels(tmp_path / f"a.{suffix}", 8, 8).astype(int) - (255, 0, 0)).max() <= 3


def test_what_is_transparent_becomes_what_normalising_takes_to_zero(tmp_path: Path) -> None:
    assert tuple(round(255 * mean) for mean in IMAGENET_MEAN) == BACKGROUND
    colour, alpha = noise(6, 5), noise(6, 5)[:, :, 1]
    alpha[0], alpha[1] = 0, 255
    share = alpha[..., None] / 255
    expected = share * colour + (1 - share) * BACKGROUND
    for name in ("a.png", "a.webp", "a.tif"):
        Image.fromarray(np.dstack([colour, alpha])).save(tmp_path / name, lossless=True, exact=True)
        pixels = read_pixels(tmp_path / name, 6, 5)
        assert np.abs(pixels - expected).max() <= 1
        assert (pixels[0] == BACKGROUND).all()  # whatever colour is stored where nothing is to be seen
        np.testing.assert_array_equal(pixels[1], colour[1])


def test_other_ways_to_be_transparent(tmp_path: Path) -> None:
    """A second channel of grey, one entry of a palette, one colour."""
    grey_and_alpha = Image.fromarray(np.array([[[9, 0], [9, 255]]], np.uint8), "LA")
    palette = Image.fromarray(np.array([[3, 1]], np.uint8), "P")
    palette.putpalette([9 * n for n in range(4) for _ in range(3)])
    one_colour = Image.fromarray(np.array([[[7, 7, 7], [9, 9, 9]]], np.uint8))
    for image, options in (
        (grey_and_alpha, {}),
        (palette, {"transparency": bytes([255, 255, 255, 0])}),
        (palette, {"transparency": 3}),
        (one_colour, {"transparency": (7, 7, 7)}),
    ):
        image.save(tmp_path / "a.png", **options)
        assert read_pixels(tmp_path / "a.png", 1, 2).tolist() == [[[*BACKGROUND], [9, 9, 9]]]


DEEP = np.array([[0, 255, 256, 32_768, 65_535]], np.uint16)


def png_of_16_bits(channels: int) -> bytes:
    """Pillow does not write colour of 16 bits."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc32(kind + content))

    header = struct.pack(">IIBBBBB", DEEP.shape[1], 1, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    row = np.repeat(DEEP[0], channels).astype(">u2").tobytes()
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", compress(b"\0" + row)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_16_bits_are_scaled_not_clipped_in_grey_as_in_colour(tmp_path: Path) -> None:
    (tmp_path / "grey.png").write_bytes(png_of_16_bits(1))
    (tmp_path / "colour.png").write_bytes(png_of_16_bits(3))
    Image.fromarray(DEEP).save(tmp_path / "little.tif")
    Image.frombytes("I;16B", (5, 1), DEEP.astype(">u2").tobytes()).save(tmp_path / "big.tif")
    for path in sorted(tmp_path.iterdir()):
        assert read_pixels(path, 1, 5)[0].tolist() == [[n] * 3 for n in (0, 0, 1, 128, 255)], path.name


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_pixels_without_a_known_range_are_refused_not_guessed(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 8)).save(tmp_path / "a.tif")
    reason = f"its pixels ({mode}) are neither grey nor RGB nor CMYK of 8 or 16 bits"
    assert refusal(tmp_path / "a.tif") == f"FILE: cannot be read ({reason}){REPLACE}"


UPRIGHT = noise(4, 3)
AS_STORED = {  # Exif 2.32, 4.6.5.1: the side that row 0 is, and the one that column 0 is
    0: UPRIGHT,  # no such orientation
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.swapaxes(0, 1),  # left, top
    6: UPRIGHT[:, ::-1].swapaxes(0, 1),  # right, top
    7: UPRIGHT[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: UPRIGHT[::-1].swapaxes(0, 1),  # left, bottom
    9: UPRIGHT,
}


@pytest.mark.parametrize("orientation", AS_STORED)
@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "jpg"])
def test_images_are_turned_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"a.{suffix}"
    stored = np.repeat(np.repeat(AS_STORED[orientation], 8, axis=0), 8, axis=1)  # for what JPEG loses
    options = {"subsampling": 0, "quality": 100} if suffix == "jpg" else {"lossless": True}
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **options)
    image = open_image(path)
    assert image.size == (24, 32)
    pixels = np.asarray(image)[4::8, 4::8].astype(int)
    assert np.abs(pixels - UPRIGHT).max() <= (3 if suffix == "jpg" else 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0MM\0*\xff\xff\xff\xff\0"])
def test_damaged_metadata_do_no_harm(tmp_path: Path, exif: bytes) -> None:
    Image.fromarray(UPRIGHT).save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg").size == (3, 4)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_of_several_frames_the_first_counts(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(frame) for frame in (noise(6, 5), 255 - noise(6, 5))]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_array_equal(read_pixels(tmp_path / f"a.{suffix}", 6, 5), noise(6, 5))


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
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
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
