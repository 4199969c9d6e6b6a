"""Images of which nobody knows who is on them, with their features and what is known of their cameras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from calr_cli.errors import DataError
from calr_cli.events import Reporter
from calr_cli.prepare.datasets.own import spelt
from calr_cli.types import Dataset, FloatArray, IntArray
from calr_cli.use.embedding import Embedder
from calr_cli.use.image_lists import Known, list_known_images
from calr_cli.use.kept_features import kept_features

SPLITS = ("all", "train", "test")
"""Parts of a prepared dataset; test: query and gallery."""


@dataclass(frozen=True)
class Pile:
    """N images of which nobody knows who is on them.

    Attributes:
        paths: Of the images.
        digests: Of their content.
        features: (N, D) unit rows.
        cameras: Name of the camera of each, "" where it is not known.
        pids: (N,) identities for measuring, ``UNKNOWN_PID`` where not known; None: nothing says them.
        failed: A line for each image that was left out since it cannot be read.
    """

    paths: tuple[str, ...]
    digests: list[str]
    features: FloatArray
    cameras: tuple[str, ...]
    pids: IntArray | None = None
    failed: list[str] = field(default_factory=list)

    @property
    def camids(self) -> IntArray:
        """(N,) cameras as numbers from 0."""
        camids: IntArray = np.unique(np.array(self.cameras), return_inverse=True)[1].astype(np.int64)
        return camids


def pile_of_images(
    embedder: Embedder, sources: Sequence[str], pattern: str | None, reporter: Reporter
) -> Pile:
    """The images of files, folders and tables; see `list_known_images`.

    Raises:
        DataError: No image can be read, or a table or pattern that cannot be used.
    """
    return _pile(embedder, list_known_images(sources, reporter, pattern), reporter)


def pile_of_dataset(embedder: Embedder, dataset: Dataset, split: str, reporter: Reporter) -> Pile:
    """The images of a part of a prepared dataset, one of `SPLITS`.

    Raises:
        DataError: There is no image in that part.
    """
    parts = {"train": [dataset.train], "test": [dataset.query, dataset.gallery]}
    parts["all"] = [*parts["train"], *parts["test"]]
    known: dict[str, Known] = {}
    pids: dict[str, int] = {}
    for images in parts[split]:
        paths = [str(images.root / path) for path in images.paths]
        known |= {path: {"camid": str(camid)} for path, camid in zip(paths, images.camids, strict=True)}
        pids |= dict(zip(paths, images.pids.tolist(), strict=True))
    if not known:
        raise DataError(f"{dataset.name} has no {split} images", "Give another --split")
    pile = _pile(embedder, known, reporter)
    return replace(pile, pids=np.array([pids[path] for path in pile.paths], np.int64))


def _pile(embedder: Embedder, known: Mapping[str, Known], reporter: Reporter) -> Pile:
    kept = kept_features(embedder, list(known), reporter, "images")
    cameras = tuple(spelt(known[path].get("camid", "")) for path in kept.paths)
    if 0 < (unknown := cameras.count("")) < len(cameras):
        reporter.warning(f"the camera of {unknown:,} images is not known: they count as of one more camera")
    return Pile(kept.paths, kept.digests, kept.rows(), cameras, failed=kept.failed)
