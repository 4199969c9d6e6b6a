"""Reads image files in the same way for checking, training and evaluation."""

from __future__ import annotations

import warnings
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from calr_cli.errors import DataError

# Pillow warns of damaged metadata, and of more than 89 million pixels, which photographs have; what it cannot
# or does not read, images of twice as many pixels among it, is an error.
warnings.filterwarnings("ignore", module=r"PIL\.")

BACKGROUND = (124, 116, 104)
"""Colour behind transparent pixels: the mean of ImageNet, which normalisation maps to zero."""

_REPLACE = "Replace or delete it and run `calr prepare-data` again"

_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that undoes each Exif orientation except the upright one."""


def content_digest(content: bytes) -> str:
    """The digest that orders records and names images: BLAKE2b of 16 bytes, in hexadecimal."""
    return blake2b(content, digest_size=16).hexdigest()


def decode_image(file: Path | BinaryIO) -> Image.Image:
    """The image as 8-bit RGB, upright.

    The image is turned and mirrored according to its Exif orientation. Of 16 bits the high byte is used, in
    grey and colour images; transparent pixels are composited over `BACKGROUND`; of several frames the first
    is used.

    Raises:
        DataError: The range of the pixels' type is not known.
        Exception: Any error of a decoder that reads arbitrary bytes.
    """
    with Image.open(file) as image:
        return upright_rgb(image)


def upright_rgb(image: Image.Image) -> Image.Image:
    """See `decode_image`, of an image that Pillow has opened or made."""
    image.load()  # before the orientation is asked for: TIFF files turn upright while they load
    rgb = _as_rgb(image)
    method = _TO_UPRIGHT.get(_orientation(image) or 1)
    return rgb if method is None else rgb.transpose(method)


def open_image(path: Path, content: bytes | None = None) -> Image.Image:
    """The image of a file, or of what was read from it; see `decode_image`.

    Raises:
        DataError: The file is missing, empty, truncated, or not an image.
    """
    try:
        return decode_image(path if content is None else BytesIO(content))
    except FileNotFoundError:
        raise DataError(
            f"{path}: the image is gone", "Restore it, or run `calr prepare-data` again"
        ) from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: cannot be read (not an image)", _REPLACE) from None
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{path}: cannot be read ({reason})", _REPLACE) from None


def read_pixels(path: Path, height: int, width: int) -> npt.NDArray[np.uint8]:
    """The image resized bicubically, as (height, width, 3) uint8 RGB.

    Raises:
        DataError: See `open_image`.
    """
    return resized(open_image(path), height, width)


def resized(image: Image.Image, height: int, width: int) -> npt.NDArray[np.uint8]:
    """The pixels of an RGB image, resized bicubically, as (height, width, 3) uint8."""
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def image_of_array(array: npt.NDArray[Any], channels: str) -> Image.Image:
    """The image that an array of pixels is, as if it came from a PNG file.

    Args:
        array: (H, W) grey, or (H, W, C) with 1, 3 or 4 channels, uint8 or uint16, which loses its low byte.
        channels: Order of the first three: ``rgb`` or ``bgr``, the fourth being how opaque a pixel is.

    Raises:
        DataError: No such array.
    """
    if array.dtype not in (np.uint8, np.uint16):
        raise DataError(f"its numbers are {array.dtype}, not uint8")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not array.size:
        raise DataError(f"it has no pixels: its shape is {array.shape}")
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (3, 4)):
        raise DataError(f"its shape is {array.shape}, not (height, width, 3)")
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    if array.ndim == 3 and channels == "bgr":
        array = array[:, :, [2, 1, 0, 3][: array.shape[2]]]
    return Image.fromarray(np.ascontiguousarray(array))


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        # Pillow would clip all above 255 to white; of 16-bit colour it takes the high byte itself.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F", "LAB"):
        raise DataError(f"its pixels ({image.mode}) are neither grey nor RGB nor CMYK of 8 or 16 bits")
    if not image.has_transparency_data:
        return image.convert("RGB")
    opaque = Image.new("RGBA", image.size, BACKGROUND)
    opaque.alpha_composite(image.convert("RGBA"))
    return opaque.convert("RGB")


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged metadata; the pixels are there
        return None
