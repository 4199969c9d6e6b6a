"""The values that travel between stages; each checks its own invariants when it is made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

OUTLIER = -1
"""Pseudo label of an image that belongs to no cluster."""

UNKNOWN_PID = -1
"""Identity of an image whose identity is not known."""


@dataclass(frozen=True)
class ImageSet:
    """The images of one split, in record order (by content digest, ties by path).

    Attributes:
        root: Folder to which ``paths`` are relative.
        paths: N relative POSIX paths.
        pids: (N,) identities, ``UNKNOWN_PID`` if not known.
        camids: (N,) cameras, from 0.
        digests: N content digests, hexadecimal.
    """

    root: Path
    paths: tuple[str, ...]
    pids: IntArray
    camids: IntArray
    digests: tuple[str, ...]

    def __post_init__(self) -> None:
        assert len(self.paths) == len(self.pids) == len(self.camids) == len(self.digests)
        assert not len(self.camids) or int(self.camids.min()) >= 0

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def has_identities(self) -> bool:
        """Whether the set has images and every one has a known identity."""
        return len(self) > 0 and bool((self.pids != UNKNOWN_PID).all())

    @property
    def fingerprint(self) -> str:
        """Of the images and cameras in their order, hexadecimal: what labels by position belong to.

        Paths and identities do not count, because training does not look at them.
        """
        return _digest_of(zip(self.digests, self.camids, strict=True))

    @property
    def listing(self) -> str:
        """Of the paths, images and cameras, hexadecimal: what labels by path belong to."""
        return _digest_of(sorted(zip(self.paths, self.digests, self.camids, strict=True)))

    def subset(self, indices: IntArray) -> ImageSet:
        """The images at ``indices``, in that order."""
        return ImageSet(
            self.root,
            tuple(self.paths[i] for i in indices),
            self.pids[indices],
            self.camids[indices],
            tuple(self.digests[i] for i in indices),
        )


def _digest_of(rows: Iterable[tuple[object, ...]]) -> str:
    lines = "\n".join(" ".join(map(str, row)) for row in rows)
    return sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()[:32]


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset: its name and its three splits (query and gallery may be empty)."""

    name: str
    train: ImageSet
    query: ImageSet
    gallery: ImageSet

    @property
    def has_test_set(self) -> bool:
        """Whether there are queries and a gallery, all with known identities, to measure a model on."""
        return self.query.has_identities and self.gallery.has_identities

    @property
    def num_cameras(self) -> int:
        """The largest camera id of the training split plus one."""
        return int(self.train.camids.max()) + 1 if len(self.train) else 0


@dataclass(frozen=True)
class Neighbours:
    """The k nearest images of each image, nearest first, including the image itself.

    Attributes:
        indices: (N, k) positions.
        similarities: (N, k) inner products, descending along each row.
    """

    indices: IntArray
    similarities: FloatArray

    def __post_init__(self) -> None:
        assert self.indices.shape == self.similarities.shape
        assert self.indices.ndim == 2

    @property
    def k(self) -> int:
        """Neighbours per image."""
        return int(self.indices.shape[1])

    def nearest(self, k: int) -> Neighbours:
        """The first ``k`` of each image."""
        return Neighbours(self.indices[:, :k], self.similarities[:, :k])


@dataclass(frozen=True)
class RetrievalMetrics:
    """Retrieval quality over the queries that have a match.

    Attributes:
        mAP: Mean average precision in 0..1, scikit-learn's non-interpolated definition.
        cmc: (R,) cumulative match curve in 0..1; ``cmc[r - 1]`` is Rank-r.
        num_queries: Number of queries with at least one match.
        mINP: Mean inverse negative penalty in 0..1: the share of matches among the images up to the
            farthest match.
        average_precision: (Q,) average precision of every query, NaN where it has no match.
        first_match: (Q,) images ranked before each query's first match, -1 where it has none.
    """

    mAP: float  # noqa: N815 - the field writes it so
    cmc: npt.NDArray[np.float64]
    num_queries: int
    mINP: float  # noqa: N815 - the field writes it so
    average_precision: npt.NDArray[np.float64]
    first_match: IntArray

    def __post_init__(self) -> None:
        assert self.average_precision.shape == self.first_match.shape
        assert self.num_queries == np.count_nonzero(self.first_match >= 0)

    def rank(self, r: int) -> float:
        """Rank-r in 0..1; for a gallery smaller than ``r``, its last rank."""
        return float(self.cmc[min(r, len(self.cmc)) - 1])
