"""Images some of which may be damaged, or none at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from calr_cli.data.images import content_digest, image_of_array, open_image, resized, upright_rgb
from calr_cli.data.loaders import ImageFiles, UInt8Array
from calr_cli.errors import DataError
from calr_cli.types import UNKNOWN_PID, ImageSet

AnyImage: TypeAlias = str | os.PathLike[str] | npt.NDArray[Any] | Image.Image
"""A file, an array of pixels, or an image of Pillow."""

Channels = Literal["rgb", "bgr"]


class ReadableImages(ImageFiles):
    """Images, those that cannot be read being black.

    Args:
        images: N of them.
        height: Of the network input.
        width: Of the network input.
        workers: Threads that decode.
        channels: Order of the colours in arrays.
        digests: What the content of files has to be, by place; none: whatever it is.

    Attributes:
        problems: Position -> why it cannot be read, of those that were asked for.
    """

    def __init__(
        self,
        images: Sequence[AnyImage],
        height: int,
        width: int,
        workers: int,
        channels: Channels = "rgb",
        digests: Sequence[str] = (),
    ) -> None:
        count = len(images)
        nameless = ImageSet(
            Path(),
            ("",) * count,
            pids=np.full(count, UNKNOWN_PID),
            camids=np.zeros(count, np.int64),
            digests=("",) * count,
        )
        super().__init__(nameless, height, width, workers)
        self.given, self.channels, self.digests = images, channels, digests
        self.problems: dict[int, str] = {}

    def _read(self, position: int, out: UInt8Array) -> None:
        try:
            out[:] = resized(self._image(position), self.height, self.width)
        except DataError as error:
            out[:] = 0
            self.problems[position] = error.problems[0]

    def _image(self, position: int) -> Image.Image:
        given = self.given[position]
        if isinstance(given, str | os.PathLike):
            return self._file(Path(given), position)
        try:
            if isinstance(given, np.ndarray):
                given = image_of_array(given, self.channels)
            if isinstance(given, Image.Image) and not all(given.size):
                raise DataError(f"it has no pixels: its size is {given.size[0]} x {given.size[1]}")
            if isinstance(given, Image.Image):
                return upright_rgb(given)
            raise DataError(f"{type(given).__name__} is neither a path nor an array nor an image of Pillow")
        except Exception as error:  # whatever Pillow stumbles over while it loads
            reason = error.problems[0] if isinstance(error, DataError) else str(error) or type(error).__name__
            raise DataError(f"image {position}: {reason}") from None

    def _file(self, path: Path, position: int) -> Image.Image:
        if not path.name:
            raise DataError(f"image {position}: its path is empty")
        if not os.path.lexists(path):
            raise DataError(f"{path}: no such file")
        if not self.digests:
            return open_image(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        if content_digest(content) != self.digests[position]:
            raise DataError(f"{path}: has changed while the gallery was read")
        return open_image(path, content)
