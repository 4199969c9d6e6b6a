"""Images that are there twice: the same file, or the same picture saved again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calr_cli.data.images import read_pixels
from calr_cli.errors import DataError
from calr_cli.types import Neighbours

ALIKE = 0.95
"""Similarity of features from which the pixels of two images are compared."""

_SIDE = 32
_KEPT = 10_000  # small pictures, 6 KB each
_MOST_DIFFERENT = 3.0
"""Mean difference of two small pictures, in grey levels of 255: what saving as JPEG again changes at most."""


def duplicates_of(paths: Sequence[str], digests: Sequence[str], near: Neighbours) -> list[int | None]:
    """For each image the earliest image that it repeats; None: it repeats none.

    Files of the same content are duplicates. So are two images with nearly the same pixels; these are
    compared, at a small size, where the features of two neighbours are alike.

    Args:
        paths: Of N images.
        digests: Of their content.
        near: (N, k) neighbours.
    """
    small = lru_cache(_KEPT)(_small)
    repeats: list[int | None] = []
    first: dict[str, int] = {}
    for place, digest in enumerate(digests):
        root = first.setdefault(digest, place)
        if root < place:
            repeats.append(root)
            continue
        alike = near.indices[place][near.similarities[place] >= ALIKE]
        earlier = sorted(other for other in alike.tolist() if other < place)
        found = (other for other in earlier if _are_equal(small(paths[other]), small(paths[place])))
        other = next(found, None)
        repeats.append(other if other is None or repeats[other] is None else repeats[other])
    return repeats


def _are_equal(one: npt.NDArray[np.int16] | None, other: npt.NDArray[np.int16] | None) -> bool:
    return one is not None and other is not None and np.abs(one - other).mean() <= _MOST_DIFFERENT


def _small(path: str) -> npt.NDArray[np.int16] | None:
    try:
        return read_pixels(Path(path), _SIDE, _SIDE).astype(np.int16)
    except DataError:  # gone since its features were made
        return None
