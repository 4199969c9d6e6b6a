"""Every image is read once: its content digest, its size, and whether it can be decoded."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import UnidentifiedImageError

from calr_cli.data.images import content_digest, decode_image
from calr_cli.errors import DataError
from calr_cli.events import Reporter
from calr_cli.threads import available_cores

_AT_A_TIME = 1_000
"""Images handed to the threads at once: a task each for all of a large dataset would fill the memory."""


@dataclass(frozen=True)
class Inspection:
    """What reading an image found.

    Attributes:
        digest: Of the content, hexadecimal; "" if the image cannot be used.
        width: In pixels, once upright; 0 if it cannot be used.
        height: In pixels, once upright; 0 if it cannot be used.
        problem: Why it cannot be used; "" if it can.
    """

    digest: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


def inspect_image(path: Path) -> Inspection:
    """Read and decode one image, as training will."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return Inspection(problem=(error.strerror or str(error)).lower())
    if not content:
        return Inspection(problem="empty file")
    try:
        image = decode_image(io.BytesIO(content))
    except UnidentifiedImageError:
        return Inspection(problem="not an image")
    except DataError as error:
        return Inspection(problem=str(error))
    except Exception as error:
        # Pillow's decoders raise whatever they stumble over: OSError, SyntaxError, struct.error, ...
        return Inspection(problem=f"damaged: {error}")
    return Inspection(content_digest(content), image.width, image.height)


def inspect_images(paths: Sequence[Path], title: str, reporter: Reporter) -> list[Inspection]:
    """`inspect_image` of each path, in order, by as many threads as there are processors."""
    results: list[Inspection] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(available_cores()) as pool:
        warnings.simplefilter("ignore")  # odd metadata is not the user's problem: the pixels are there
        try:
            with reporter.progress(f"Checking {title}", len(paths), "images") as progress:
                for first in range(0, len(paths), _AT_A_TIME):
                    for result in pool.map(inspect_image, paths[first : first + _AT_A_TIME]):
                        results.append(result)
                        progress.advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # else Ctrl-C waits for the images still in the queue
            raise
    return results
