"""Reading image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from calr_cli.errors import DataError

_REPLACE = "Replace or delete it and run `calr prepare-data` again"


def open_image(path: Path) -> Image.Image:
    """The decoded image as RGB.

    Raises:
        DataError: Missing, empty, truncated, or not an image.
    """
    try:
        with Image.open(path) as image:
            image.info.pop("transparency", None)  # colours count as they are; Pillow would warn of it
            return image.convert("RGB")
    except FileNotFoundError:
        raise DataError(
            f"{path}: the image is gone", "Restore it, or run `calr prepare-data` again"
        ) from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: cannot be read (not an image)", _REPLACE) from None
    except Exception as error:  # whatever a decoder of arbitrary bytes may stumble over
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
