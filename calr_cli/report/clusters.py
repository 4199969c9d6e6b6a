"""Chooses the clusters that the page shows, and the images of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calr_cli.types import OUTLIER, ImageSet, IntArray

MEMBERS, DISCARDED = 11, 12
"""Number of images shown of a cluster, and of the images that refinement discarded from it."""


@dataclass(frozen=True)
class Member:
    """An image of a cluster.

    Attributes:
        image: Position of the image in the training split.
        camid: Camera of the image.
        agrees: Whether the image has the pivot's identity; None if that is not known.
    """

    image: int
    camid: int
    agrees: bool | None


@dataclass(frozen=True)
class Cluster:
    """A cluster as the page shows it.

    Attributes:
        label: Number of the cluster.
        pivot: Pivot of the cluster; None if there is none.
        members: Some of the other images that the cluster keeps.
        discarded: Some of the images that refinement discarded.
        num_members: Number of all images that the cluster keeps, including the pivot.
        num_discarded: Number of all images that refinement discarded.
        num_cameras: Number of cameras of the images that the cluster keeps.
        purity: Share of the commonest identity among these images; None if identities are not known.
    """

    label: int
    pivot: Member | None
    members: list[Member]
    discarded: list[Member]
    num_members: int
    num_discarded: int
    num_cameras: int
    purity: float | None


def choose_clusters(
    global_labels: IntArray, refined_labels: IntArray, pivots: IntArray, images: ImageSet, count: int
) -> list[Cluster]:
    """The clusters from which refinement discarded most images, then the largest clusters.

    Args:
        global_labels: (N,) labels before refinement.
        refined_labels: (N,) labels after refinement.
        pivots: (K,) position of each cluster's pivot, -1 for none.
        images: N training images.
        count: Number of clusters to show, half of each kind.
    """
    sizes, lost = (
        np.bincount(global_labels[chosen], minlength=len(pivots))
        for chosen in (refined_labels != OUTLIER, (global_labels != OUTLIER) & (refined_labels == OUTLIER))
    )
    by_loss = [int(label) for label in np.argsort(-lost, kind="stable")[: count // 2] if lost[label]]
    by_size = [int(label) for label in np.argsort(-sizes, kind="stable") if label not in by_loss]
    return [
        _cluster(label, global_labels, refined_labels, int(pivots[label]), images)
        for label in (*by_loss, *by_size[: count - len(by_loss)])
    ]


def _cluster(
    label: int, global_labels: IntArray, refined_labels: IntArray, pivot: int, images: ImageSet
) -> Cluster:
    kept = np.flatnonzero(refined_labels == label)
    discarded = np.flatnonzero((global_labels == label) & (refined_labels == OUTLIER))
    identity = images.pids[pivot] if pivot >= 0 and images.has_identities else None

    def member(image: int) -> Member:
        agrees = None if identity is None else bool(images.pids[image] == identity)
        return Member(int(image), int(images.camids[image]), agrees)

    others = kept[kept != pivot]
    return Cluster(
        label,
        member(pivot) if pivot >= 0 else None,
        [member(image) for image in _spread(others, images.camids, MEMBERS)],
        [member(image) for image in discarded[:DISCARDED]],
        len(kept),
        len(discarded),
        len(np.unique(images.camids[kept])),
        _purity(images.pids[kept]) if images.has_identities else None,
    )


def _spread(images: IntArray, camids: IntArray, count: int) -> IntArray:
    """At most ``count`` of the images, taken from all cameras in turn and returned in the cameras' order."""
    turn = np.zeros(len(images), np.int64)
    for camid in np.unique(camids[images]):
        mine = np.flatnonzero(camids[images] == camid)
        turn[mine] = np.arange(len(mine))
    chosen = images[np.argsort(turn, kind="stable")[:count]]
    ordered: IntArray = chosen[np.argsort(camids[chosen], kind="stable")]
    return ordered


def _purity(pids: IntArray) -> float:
    return float(np.unique(pids, return_counts=True)[1].max() / len(pids))
