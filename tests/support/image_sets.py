"""A handful of made-up image files as an `ImageSet`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from calr_cli.data.images import content_digest
from calr_cli.types import ImageSet
from tests.support.made_up import write_image


def make_image_set(root: Path, count: int, cameras: int = 2) -> ImageSet:
    """``count`` images of three identities; the cameras take turns."""
    root.mkdir(parents=True, exist_ok=True)
    numbers = np.arange(count)
    pids = numbers % 3
    paths = tuple(f"{n:03d}.png" for n in numbers)
    for n, path in enumerate(paths):
        write_image(root / path, int(pids[n]), seed=n)
    digests = tuple(content_digest((root / path).read_bytes()) for path in paths)
    return ImageSet(root, paths, pids, numbers % cameras, digests)
