"""Images small enough to be part of the page."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from pathlib import Path

from calr_cli.data.images import open_image

SIDE = 128
"""Largest number of pixels of the longer side."""

_QUALITY = 72


def thumbnail(path: Path) -> str:
    """The image as a ``data:`` address.

    Raises:
        DataError: The image cannot be read.
    """
    image = open_image(path)
    image.thumbnail((SIDE, SIDE))
    file = BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode('ascii')}"
