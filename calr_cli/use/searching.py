"""Finding the images of a gallery that show what a query shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from calr_cli.data.tables import first_names
from calr_cli.distances.search import BLOCK_BYTES, nearest
from calr_cli.errors import DataError
from calr_cli.events import Reporter
from calr_cli.files import calr_home
from calr_cli.method.estimates import block_bytes, memory_limit
from calr_cli.use.embedding import Embedder, content_digests
from calr_cli.use.feature_files import FeatureFile, Features, open_features, write_features
from calr_cli.use.image_lists import list_images


@dataclass(frozen=True)
class Gallery:
    """The images that are searched.

    Attributes:
        file: Their features.
        paths: Their names, in the order of the features.
    """

    file: FeatureFile
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


def open_gallery(embedder: Embedder, source: str, reporter: Reporter) -> Gallery:
    """The gallery of a feature file, or of a folder or table of images.

    The features of images are kept below ``$CALR_HOME/galleries``, by the content and order of the images
    and by the model, and taken from there the next time.

    Raises:
        DataError: No such file, features of another model, or no image that can be read.
        OSError: The features cannot be kept.
    """
    if source.endswith(".npz"):
        file = open_features(Path(source))
        if file.model and file.model != embedder.key:
            raise DataError(
                f"{source} was made by another model, or with another input size",
                "Make it again with this model, or give --gallery the folder of its images",
            )
        if file.dim != embedder.encoder.feature_dim:
            raise DataError(f"{source} has {file.dim} dimensions, the model {embedder.encoder.feature_dim}")
        if not file.model:
            reporter.warning(f"{source} does not say which model made it: taken as made by this one")
        return Gallery(file, file.paths)
    if not Path(source).exists():
        raise DataError(f"no gallery {source}", "Give a folder, a table of images, or a file of features.npz")
    return _of_images(embedder, list_images([source], reporter), reporter)


def _of_images(embedder: Embedder, paths: Sequence[str], reporter: Reporter) -> Gallery:
    """Rows are kept under the digests of their images: what the images are called may change."""
    digests = content_digests(paths, reporter)
    key = blake2b("\n".join([embedder.key, *digests]).encode(), digest_size=16).hexdigest()
    kept = calr_home() / "galleries" / f"{key}.npz"
    try:
        file = open_features(kept)
        reporter.note(f"gallery: {len(file):,} images, as kept in {kept}")
        if left_out := _without(paths, digests, file.paths):
            reporter.warning(f"{len(left_out)} images cannot be read: {first_names(left_out)}: left out")
    except (OSError, DataError):  # not there, or damaged
        reporter.note(f"gallery: {len(paths):,} images; their features will be kept in {kept}")
        made, _ = embedder.embed(paths, "gallery", reporter)
        readable = set(made.paths)
        names = tuple(digest for path, digest in zip(paths, digests, strict=True) if path in readable)
        left_out = _without(paths, digests, names)
        if readable.intersection(left_out) or len(left_out) + len(readable) < len(paths):
            raise DataError("images of the gallery have changed while they were read", "Try again") from None
        write_features(kept, Features(names, made.rows, made.model))
        file = open_features(kept)
    gone = set(left_out)
    return Gallery(file, tuple(path for path in paths if path not in gone))


def _without(paths: Sequence[str], digests: Sequence[str], there: Sequence[str]) -> list[str]:
    """The paths whose digest is not ``there``; one that cannot be read has none."""
    contents = set(there) - {""}
    return [path for path, digest in zip(paths, digests, strict=True) if digest not in contents]


def search(
    embedder: Embedder, gallery: Gallery, queries: Features, top: int, threshold: float | None
) -> list[dict[str, Any]]:
    """The most similar gallery images of each query.

    Args:
        embedder: Its memory limit and calibration are used.
        gallery: Of G images.
        queries: Of Q images.
        top: Images listed for each query.
        threshold: Similarity from which two images are taken to show the same; None: nothing is.

    Returns:
        For each query its path, whether it is unknown (no gallery image reaches the threshold; None without
        a threshold), and its results: rank, path, similarity, probability (None without calibration), same.

    Raises:
        DataError: The features are damaged or not of unit length.
    """
    scratch = min(BLOCK_BYTES, block_bytes(memory_limit(embedder.settings)))
    blocks = gallery.file.blocks(max(1, scratch // (4 * gallery.file.dim)))
    device = embedder.encoder.device
    found = nearest(queries.rows, blocks, top, device=device, block_bytes=scratch)
    calibration = embedder.calibration
    probabilities = np.full(found.similarities.shape, np.nan)
    if calibration is not None:
        prior = calibration.prior_of_search(len(gallery))
        probabilities = calibration.probability(found.similarities, prior)
    answers = []
    for query, places, similarities, likely in zip(
        queries.paths, found.indices, found.similarities, probabilities, strict=True
    ):
        results = [
            {
                "rank": rank,
                "path": gallery.paths[place],
                "similarity": float(similarity),
                "probability": None if calibration is None else float(probability),
                "same": None if threshold is None else bool(similarity >= threshold),
            }
            for rank, (place, similarity, probability) in enumerate(
                zip(places, similarities, likely, strict=True), start=1
            )
        ]
        unknown = None if threshold is None else not results[0]["same"]
        answers.append({"query": query, "unknown": unknown, "results": results})
    return answers
