"""Whether a gallery knows who is on new images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from calr_cli.clustering.agglomerative import agglomerative_labels
from calr_cli.data.images import open_image
from calr_cli.distances.search import nearest
from calr_cli.errors import DataError
from calr_cli.events import Reporter
from calr_cli.method.estimates import block_bytes, memory_limit
from calr_cli.types import FloatArray, IntArray
from calr_cli.use.embedding import Embedder, content_digests, nothing_readable, warn_of
from calr_cli.use.gallery_file import GalleryFile, Seen
from calr_cli.use.identities import closest_pairs
from calr_cli.use.image_lists import Known
from calr_cli.use.verdict import reaches

SIDE, _QUALITY = 96, 80
"""Pixels of the longer side of a small picture."""

_SCRATCH = 2**22
"""Bytes of a block: what is read, turned into numbers and compared stays in the processor's cache."""

MOST_SPLIT = 4000
"""Images of an identity that can be split: all their pairs are looked at."""


@dataclass(frozen=True)
class Sighting:
    """One image, or the images of one track, which show one identity.

    Attributes:
        images: Of it, in the order given.
        feature: (D,) mean of their features: its products are mean similarities.
    """

    images: tuple[Seen, ...]
    feature: FloatArray


@dataclass(frozen=True)
class Answer:
    """Who is seen.

    Attributes:
        sighting: What was asked.
        identity: Number in the gallery; None: somebody new.
        new: Number from 1 of the new one among the new ones of this call; None: known.
        similarity: To the most similar image of the gallery; None: the gallery is empty.
        probability: That it shows the same, None without a calibration.
    """

    sighting: Sighting
    identity: int | None
    new: int | None
    similarity: float | None
    probability: float | None


def look_at(
    embedder: Embedder, known: Mapping[str, Known], reporter: Reporter
) -> tuple[list[Seen], list[str]]:
    """Images with their features and small pictures; and a line for each that cannot be read.

    Raises:
        DataError: No image can be read.
        CheckpointError: The model gives something else than numbers.
        MemoryLimitError: The features do not fit.
    """
    paths = list(known)
    digests = content_digests(paths, reporter)
    rows, problems = embedder.rows_of(paths, "images", reporter, digests=digests)
    failed = [problems[place] for place in sorted(problems)]
    if len(failed) == len(paths):
        raise nothing_readable(failed)
    warn_of(failed, reporter)
    seen = [
        Seen(path, digests[place], known[path].get("camid", ""), rows[place], _picture(path))
        for place, path in enumerate(paths)
        if place not in problems
    ]
    return seen, failed


def _picture(path: str) -> bytes:
    image, file = open_image(Path(path)), BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def sightings_of(images: Sequence[Seen], known: Mapping[str, Known]) -> list[Sighting]:
    """The images of each track of a camera together, every other image by itself."""
    groups: dict[tuple[str, ...], list[Seen]] = {}
    for image in images:
        track = known[image.path].get("track", "")
        groups.setdefault((image.camera, track) if track else (image.path,), []).append(image)
    return [
        Sighting(tuple(group), np.mean([image.feature for image in group], axis=0))
        for group in groups.values()
    ]


def assign(
    gallery: GalleryFile, sightings: Sequence[Sighting], embedder: Embedder, least: float
) -> list[Answer]:
    """For each sighting the known identity, or somebody new; several sightings may be of one new identity.

    Args:
        gallery: Read once, in blocks.
        sightings: Q of them.
        embedder: The model, with its calibration.
        least: Similarity from which two images are taken to show the same.
    """
    scratch = min(_SCRATCH, block_bytes(memory_limit(embedder.settings)))
    rows = max(1, scratch // (4 * gallery.maker.dim))
    features = np.stack([sighting.feature for sighting in sightings]).astype(np.float32)
    device = embedder.encoder.device
    found = nearest(features, gallery.blocks(rows), 1, device=device, block_bytes=scratch)
    numbers, calibration = gallery.images()[1], embedder.calibration
    answers: list[Answer] = []
    strangers: list[FloatArray] = []  # the first sighting of each new identity
    for place, sighting in enumerate(sightings):
        if not numbers:
            similarity, probability = None, None
        else:
            similarity = float(min(1.0, found.similarities[place, 0]))
            prior = None if calibration is None else calibration.prior_of_search(len(numbers))
            probability = (
                None
                if calibration is None or prior is None
                else float(calibration.probability(similarity, prior))
            )
            if reaches(similarity, least):
                identity = numbers[found.indices[place, 0]]
                answers.append(Answer(sighting, identity, None, similarity, probability))
                continue
        likeness = np.array([row @ sighting.feature for row in strangers])
        if len(likeness) and reaches(float(likeness.max()), least):
            new = int(likeness.argmax()) + 1
        else:
            strangers.append(sighting.feature)
            new = len(strangers)
        answers.append(Answer(sighting, None, new, similarity, probability))
    return answers


def keep_answers(gallery: GalleryFile, answers: Sequence[Answer]) -> dict[int, int]:
    """Add the images of all answers; the number in the gallery of each new identity."""
    made: dict[int, int] = {}
    for answer in answers:
        number = answer.identity
        if number is None:
            assert answer.new is not None
            if answer.new not in made:
                made[answer.new] = gallery.new_identity()
            number = made[answer.new]
        gallery.keep(number, answer.sighting.images)
    return made


def look_like_one(gallery: GalleryFile, count: int) -> list[tuple[int, int, float]]:
    """Pairs of identities that look most like one, with the mean similarity of their images."""
    numbers, labels = np.unique(gallery.images()[1], return_inverse=True)
    if len(numbers) < 2:
        return []
    sums, first = np.zeros((len(numbers), gallery.maker.dim), np.float32), 0
    for block in gallery.blocks(4096):
        np.add.at(sums, labels[first : first + len(block)], block)
        first += len(block)
    sums /= np.bincount(labels)[:, None]
    pairs = closest_pairs(sums, np.arange(len(numbers)), count)
    return [(int(numbers[a]), int(numbers[b]), similarity) for a, b, similarity in pairs]


def halves(features: FloatArray) -> IntArray:
    """(N,) 0 or 1: the two groups into which the images of an identity fall by average linkage.

    Raises:
        DataError: One image, or too many.
    """
    if not 1 < len(features) <= MOST_SPLIT:
        raise DataError(
            f"it has {len(features):,} images: from 2 to {MOST_SPLIT:,} can be split in two",
            "Give the images that are of somebody else: --image PATH",
        )
    distances = 1 - features @ features.T
    np.fill_diagonal(distances, 0)
    return agglomerative_labels(distances, 2)
