"""Finding the images of a gallery that show what a query shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from calr_cli.distances.search import BLOCK_BYTES, nearest
from calr_cli.errors import ConfigError, DataError
from calr_cli.events import Reporter
from calr_cli.method.estimates import block_bytes, memory_limit
from calr_cli.types import FloatArray
from calr_cli.use.embedding import Embedder, Precision
from calr_cli.use.feature_files import FeatureFile, Features, has_features, open_features
from calr_cli.use.gallery_file import is_gallery
from calr_cli.use.gallery_model import GalleryFeatures, open_gallery_features
from calr_cli.use.image_lists import cameras_in_names, list_known_images
from calr_cli.use.kept_features import KeptFeatures, kept_features
from calr_cli.use.verdict import reaches

PER_CAMERA = "-per-camera"
"""What ends the model of features that are standardised: they cannot be compared with those that are not."""

BLOCK_ROWS = 4096
"""Of a gallery that is read for anything but products."""

PRECISION_EFFECT = 0.1
"""How far a similarity moves at most, as measured, if one of two features is of another precision."""


@dataclass(frozen=True)
class Gallery:
    """The images that are searched.

    Attributes:
        paths: Their names, in the order of the features.
        dim: D.
        embedder: The model, computing in what the features were computed in: for the queries.
        read: Gives the features in blocks of at most so many rows, (B, D) float32.
        cameras: Name of the camera of each image, "" where it is not known.
    """

    paths: tuple[str, ...]
    dim: int
    embedder: Embedder
    read: Callable[[int], Iterator[FloatArray]]
    cameras: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)


def open_gallery(
    embedder: Embedder, sources: Sequence[str], reporter: Reporter, pattern: str | None = None
) -> Gallery:
    """The gallery of feature files, and of folders and tables of images.

    The features of images are kept (`feature_store`), by their content and by the model, and taken from there
    the next time. Where files were made in another precision, images and queries are computed in that.

    Args:
        embedder: The model.
        sources: Files, folders and tables.
        reporter: Told what happens.
        pattern: Says the cameras; see `list_known_images`.

    Raises:
        DataError: No such file, features of another model, or no image that can be read.
    """
    files: list[FeatureFile] = []
    images = []
    for source in dict.fromkeys(sources):
        if not source or not Path(source).exists():
            hint = "Give a folder, a table of images, or a file of features.npz"
            raise DataError(f"no gallery {source}" if source else "the gallery has no name", hint)
        if is_gallery(Path(source)):
            files.append(open_gallery_features(Path(source), embedder))
            continue
        if source.lower().endswith(".npz") or has_features(Path(source)):
            file = open_features(Path(source))
            if _is_usable(file, embedder, reporter):
                files.append(file)
                continue
        images.append(source)
    embedder = _computing_like(files, embedder, reporter)
    parts: list[FeatureFile | KeptFeatures] = [*files]
    cameras: list[str] = []
    for file in files:
        known_there = file.cameras if isinstance(file, GalleryFeatures) else ("",) * len(file)
        found = cameras_in_names(file.paths, pattern)
        cameras += [kept or camera for kept, camera in zip(known_there, found, strict=True)]
    if images:
        known = list_known_images(images, reporter, pattern)
        parts.append(kept_features(embedder, list(known), reporter))
        cameras += [known[path].get("camid", "") for path in parts[-1].paths]
    return Gallery(
        tuple(chain.from_iterable(part.paths for part in parts)),
        embedder.encoder.feature_dim,
        embedder,
        lambda rows: chain.from_iterable(part.blocks(rows) for part in parts),
        tuple(cameras),
    )


def _is_usable(file: FeatureFile, embedder: Embedder, reporter: Reporter) -> bool:
    """Whether the features are this model's; False: the images that a table lists are to be embedded.

    Raises:
        DataError: They are not, and there is nothing else in the file.
    """
    if file.model == embedder.key + PER_CAMERA:
        raise DataError(
            f"{file.path} has features standardised by camera: queries cannot be made like them",
            "Embed without --per-camera, and give --per-camera to search",
        )
    is_table = file.path.suffix.lower() != ".npz"
    if is_table and file.model != embedder.key:
        which = "another model, or with another input size" if file.model else "a model that it does not name"
        reporter.note(f"{file.path} was made by {which}: its images are embedded anew")
        return False
    if file.model and file.model != embedder.key:
        raise DataError(
            f"{file.path} was made by another model, or with another input size",
            "Make it again with this model, or give --gallery the folder of its images",
        )
    if file.dim != embedder.encoder.feature_dim:
        dim = embedder.encoder.feature_dim
        raise DataError(f"{file.path} has {file.dim} dimensions, the model {dim}")
    if not file.model:
        reporter.warning(f"{file.path} does not say which model made it: taken as made by this one")
    return True


def _computing_like(files: Sequence[FeatureFile], embedder: Embedder, reporter: Reporter) -> Embedder:
    """The model in the precision of the files; where that cannot be, or is not known, that is said.

    Raises:
        DataError: The files are of different precision.
    """
    effect = f"similarities may be off by up to {PRECISION_EFFECT}"
    made_in: dict[str, FeatureFile] = {}
    for file in files:
        if file.precision in get_args(Precision):
            made_in.setdefault(file.precision, file)
        elif file.model:
            says = f"says {file.precision!r} as" if file.precision else "does not say"
            reporter.note(
                f"{file.path} {says} its precision: taken as {embedder.precision}; if it was made in "
                f"another, {effect}"
            )
    if len(made_in) > 1:
        what = " and ".join(f"{file.path} in {precision}" for precision, file in made_in.items())
        raise DataError(f"{what}: their similarities cannot be compared", "Make one of them again")
    for precision, file in made_in.items():
        if precision == embedder.precision:
            continue
        try:
            embedder = embedder.computing_in(cast(Precision, precision))
            reporter.note(f"{file.path} was made in {precision}: the queries are computed in that, too")
        except ConfigError:
            reporter.warning(
                f"{file.path} was made in {precision}, which {embedder.encoder.device} cannot compute in: "
                f"{effect}"
            )
    return embedder


def search(gallery: Gallery, queries: Features, top: int, threshold: float | None) -> list[dict[str, Any]]:
    """The most similar gallery images of each query.

    Args:
        gallery: Of G images.
        queries: Of Q images, by the gallery's `embedder`.
        top: Images listed for each query.
        threshold: Similarity from which two images are taken to show the same; None: nothing is.

    Returns:
        For each query its path, whether it is unknown (no gallery image reaches the threshold; None without
        a threshold), and its results: rank, path, similarity, probability (None without calibration), same.

    Raises:
        DataError: The features are damaged or not of unit length.
    """
    scratch = min(BLOCK_BYTES, block_bytes(memory_limit(gallery.embedder.settings)))
    blocks = gallery.read(max(1, scratch // (4 * gallery.dim)))
    device = gallery.embedder.encoder.device
    found = nearest(queries.rows, blocks, top, device=device, block_bytes=scratch)
    found = replace(found, similarities=np.clip(found.similarities, -1, 1))  # rounded above 1 now and then
    calibration = gallery.embedder.calibration
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
                "same": None if threshold is None else reaches(similarity, threshold),
            }
            for rank, (place, similarity, probability) in enumerate(
                zip(places, similarities, likely, strict=True), start=1
            )
        ]
        unknown = None if threshold is None else not results[0]["same"]
        answers.append({"query": query, "unknown": unknown, "results": results})
    return answers
