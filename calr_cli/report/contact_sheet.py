"""The identities that were found, as one page that works offline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calr_cli.errors import DataError
from calr_cli.report.rendering import render_as_utf8
from calr_cli.report.thumbnails import thumbnail
from calr_cli.types import OUTLIER, IntArray
from calr_cli.use.identities import Identities, closest_pairs

LARGEST, LEAST_SURE, PAIRS, OTHERS = 20, 20, 15, 200
"""How many identities a part of the page shows at most."""

IMAGES = 12
"""Images shown of an identity: the page stays below some ten MB."""


@dataclass(frozen=True)
class Shown:
    """An identity as the page shows it.

    Attributes:
        label: Its number.
        images: How many it has.
        cameras: How many cameras saw it; 0: not known.
        confidence: Mean of its images.
        tiles: Address and name of some images, the least sure first; the address is empty where there is no
            image any more.
    """

    label: int
    images: int
    cameras: int
    confidence: float
    tiles: list[tuple[str, str]]


def contact_sheet(found: Identities, model: str) -> str:
    """HTML of the identities: the largest, the least sure, pairs that look like one, then the others."""
    sizes, labels = found.sizes, found.labels
    kept = labels != OUTLIER
    sums = np.bincount(labels[kept], found.confidence[kept], minlength=len(sizes))
    sure = sums / np.maximum(sizes, 1)
    largest = list(range(min(LARGEST, len(sizes))))
    least = [int(n) for n in np.argsort(sure, kind="stable")[:LEAST_SURE] if sure[n] < 1]
    pairs = closest_pairs(found.pile.features, labels, PAIRS)
    seen = {*largest, *least, *(n for a, b, _ in pairs for n in (a, b))}
    others = [n for n in range(len(sizes)) if n not in seen]
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum([(~kept).sum(), *sizes])[:-1])[1:]
    shown = {n: _shown(found, n, members[n], float(sure[n])) for n in (*seen, *others[:OTHERS])}
    return render_as_utf8(
        "identities.html",
        model=model,
        images=len(labels),
        identities=len(sizes),
        outliers=int((~kept).sum()),
        bias=found.bias,
        largest=[shown[n] for n in largest],
        least=[shown[n] for n in least],
        pairs=[(shown[a], shown[b], value) for a, b, value in pairs],
        others=[shown[n] for n in others[:OTHERS]],
        left_out=max(0, len(others) - OTHERS),
    )


def _shown(found: Identities, label: int, members: IntArray, confidence: float) -> Shown:
    chosen = members[np.argsort(found.confidence[members], kind="stable")]
    if len(chosen) > IMAGES:  # from the least to the most sure
        chosen = chosen[np.linspace(0, len(chosen) - 1, IMAGES).astype(int)]
    names = [found.pile.paths[n] for n in chosen]
    cameras = {found.pile.cameras[n] for n in members} - {""}
    return Shown(label, len(members), len(cameras), confidence, [(_source(name), name) for name in names])


def _source(name: str) -> str:
    try:
        return thumbnail(Path(name))
    except DataError:
        return ""
