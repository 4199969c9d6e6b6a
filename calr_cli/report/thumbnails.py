"""Images small enough to be part of the page."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from pathlib import Path

from PIL import Image

from calr_cli.data.images import open_image

SIDE = 128
"""Largest number of pixels of the longer side."""

_QUALITY = 72


def thumbnail(path: Path) -> str:
    """The image as a ``data:`` address.

    Raises:
        DataError: The image cannot be read.
    """
    return address(small(path))


def small(path: Path) -> Image.Image:
    """The image, no side longer than `SIDE`.

    Raises:
        DataError: It cannot be read.
    """
    image = open_image(path)
    image.thumbnail((SIDE, SIDE))
    return image


def address(image: Image.Image) -> str:
    """The image as a ``data:`` address."""
    file = BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode('ascii')}"
