"""Images with a frame, a sign and a caption, for ranked lists and clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calr_cli.report.clusters import Cluster, Member
from calr_cli.report.retrieval import Retrieval
from calr_cli.report.thumbnails import thumbnail
from calr_cli.types import UNKNOWN_PID, Dataset, ImageSet, IntArray


@dataclass(frozen=True)
class Tile:
    """An image in a frame.

    Attributes:
        source: Address of the image.
        alt: Description of the image, in words.
        kind: Kind of the frame: query, right, wrong, own, pivot, member or other.
        sign: Sign with the same meaning, without colour.
        caption: A line below.
    """

    source: str
    alt: str
    kind: str
    sign: str
    caption: str


@dataclass(frozen=True)
class RankedList:
    """A query and the images found for it.

    Attributes:
        title: Reason for showing the query.
        precision: Average precision of the query in 0..1.
        query: Tile of the query.
        found: Tiles of the images that were ranked first.
    """

    title: str
    precision: float
    query: Tile
    found: list[Tile]


@dataclass(frozen=True)
class Mosaic:
    """A cluster with the images that it keeps, pivot first, and the images that refinement discarded."""

    cluster: Cluster
    kept: list[Tile]
    discarded: list[Tile]


def telling_queries(retrieval: Retrieval, each: int) -> list[tuple[str, int]]:
    """The best, median and worst queries by average precision, ``each`` of every kind."""
    order = retrieval.by_precision()
    each = min(each, -(-len(order) // 3))
    middle = max(0, (len(order) - each) // 2)
    parts = (("best", order[:each]), ("median", order[middle : middle + each]), ("worst", order[-each:]))
    return [(title, int(query)) for title, queries in parts if each for query in queries]


def ranked_list(retrieval: Retrieval, dataset: Dataset, query: int, title: str) -> RankedList:
    """The first images found for a query, with thumbnails.

    Raises:
        DataError: An image cannot be read.
    """
    queries, gallery = dataset.query, dataset.gallery
    pid, camid = int(queries.pids[query]), int(queries.camids[query])
    found = []
    nearest = zip(retrieval.nearest[query].tolist(), retrieval.similarities[query].tolist(), strict=True)
    for place, (image, similarity) in enumerate(nearest, start=1):
        of_image = int(gallery.camids[image])
        kind, sign, words = _verdict(pid, camid, int(gallery.pids[image]), of_image)
        alt = f"Place {place}: {words}, camera {of_image}, similarity {similarity:.2f}"
        found.append(Tile(_source(gallery, image), alt, kind, sign, f"c{of_image} {similarity:.2f}"))
    alt = f"Query: identity {pid}, camera {camid}"
    shown = Tile(_source(queries, query), alt, "query", "query", f"c{camid}")
    return RankedList(title, float(retrieval.metrics.average_precision[query]), shown, found)


def _verdict(pid: int, camid: int, other_pid: int, other_camid: int) -> tuple[str, str, str]:
    if other_pid == UNKNOWN_PID:
        return "own", "–", "without an identity, not counted"
    if pid != other_pid:
        return "wrong", "✗", "wrong, another identity"
    if camid == other_camid:
        return "own", "○", "the same identity in the same camera, not counted"
    return "right", "✓", "right, the same identity in another camera"


def mosaic(cluster: Cluster, images: ImageSet) -> Mosaic:
    """The cluster with thumbnails.

    Raises:
        DataError: An image cannot be read.
    """
    kept = [_member(cluster.pivot, images, "pivot", "★", "pivot")] if cluster.pivot else []
    for member in cluster.members:
        if member.agrees is False:
            kept.append(_member(member, images, "wrong", "≠", "kept, of another identity than the pivot"))
        else:
            kept.append(_member(member, images, "member", "", "kept"))
    discarded = []
    for member in cluster.discarded:
        kind, sign, words = {
            True: ("wrong", "✗", "thrown out wrongly: it is of the pivot's identity"),
            False: ("right", "✓", "thrown out rightly: it is of another identity than the pivot"),
            None: ("own", "–", "thrown out"),
        }[member.agrees]
        discarded.append(_member(member, images, kind, sign, words))
    return Mosaic(cluster, kept, discarded)


def _member(member: Member, images: ImageSet, kind: str, sign: str, words: str) -> Tile:
    alt = f"Camera {member.camid}, {words}"
    return Tile(_source(images, member.image), alt, kind, sign, f"c{member.camid}")


def _source(images: ImageSet, index: int) -> str:
    return thumbnail(images.root / images.paths[index])


def changed_queries(first: Retrieval, other: Retrieval, each: int) -> Sequence[tuple[str, int]]:
    """The queries whose average precision gained and lost most from the first run to the other."""
    gain = np.nan_to_num(other.metrics.average_precision - first.metrics.average_precision)
    order: IntArray = np.argsort(-gain, kind="stable")
    gained = [("gained most", int(query)) for query in order[:each] if gain[query] > 0]
    return gained + [("lost most", int(query)) for query in order[::-1][:each] if gain[query] < 0]
