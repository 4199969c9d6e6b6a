"""Reads image files in the same way for checking, training and evaluation."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from calr_cli.errors import DataError

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
        image.load()  # before the orientation is asked for: TIFF files turn upright while they load
        rgb = _as_rgb(image)
        method = _TO_UPRIGHT.get(_orientation(image) or 1)
        return rgb if method is None else rgb.transpose(method)


def open_image(path: Path) -> Image.Image:
    """The image of a file; see `decode_image`.

    Raises:
        DataError: The file is missing, empty, truncated, or not an image.
    """
    try:
        return decode_image(path)
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
    image = open_image(path)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


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
