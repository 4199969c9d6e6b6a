"""Every image is read once: its content digest, and whether it can be decoded."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from calr_cli.events import Reporter

DIGEST_BYTES = 16


def content_digest(content: bytes) -> str:
    """The digest that orders records and names images: BLAKE2b of 16 bytes, in hexadecimal."""
    return blake2b(content, digest_size=DIGEST_BYTES).hexdigest()


def inspect_image(path: Path) -> tuple[str, str]:
    """The content digest and "", or "" and the reason why the image cannot be used."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return "", (error.strerror or str(error)).lower()
    if not content:
        return "", "empty file"
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except UnidentifiedImageError:
        return "", "not an image"
    except Exception as error:
        # Pillow's decoders raise whatever they stumble over: OSError, SyntaxError, struct.error, ...
        return "", f"damaged: {error}"
    return content_digest(content), ""


def inspect_images(paths: Sequence[Path], title: str, reporter: Reporter) -> list[tuple[str, str]]:
    """`inspect_image` of each path, in order, by as many threads as there are processors."""
    results: list[tuple[str, str]] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # odd metadata is not the user's problem: the pixels are there
        try:
            with reporter.progress(f"Checking {title}", len(paths), "images") as progress:
                for result in pool.map(inspect_image, paths):
                    results.append(result)
                    progress.advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # else Ctrl-C waits for all images still in the queue
            raise
    return results
