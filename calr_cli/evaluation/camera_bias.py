"""How far features and clusters follow cameras instead of identities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import normalized_mutual_info_score

from calr_cli.types import OUTLIER, IntArray, Neighbours

_SHUFFLES = 10


@dataclass(frozen=True)
class CameraBias:
    """What nearest neighbours and clusters have in common with cameras, beside what chance would give.

    Attributes:
        same_camera: Share of images whose nearest other image is of the same camera.
        same_camera_by_chance: The share if neighbours were drawn at random.
        nmi: Normalised mutual information of clusters and cameras, of the images in clusters; None: there are
            no two clusters.
        nmi_by_chance: The mean of the same figure with the cameras shuffled; small clusters alone make it
            larger than 0.
    """

    same_camera: float
    same_camera_by_chance: float
    nmi: float | None = None
    nmi_by_chance: float | None = None

    def __str__(self) -> str:
        """In one line, for people."""
        shares = (
            f"{100 * self.same_camera:.0f} % of nearest neighbours are of the same camera "
            f"(by chance {100 * self.same_camera_by_chance:.0f} %)"
        )
        if self.nmi is None:
            return shares
        return f"{shares}; NMI of clusters and cameras {self.nmi:.3f} (by chance {self.nmi_by_chance:.3f})"


def camera_bias(
    neighbours: Neighbours, camids: IntArray, labels: IntArray | None = None
) -> CameraBias | None:
    """The camera bias of images; None if they are of one camera.

    Source: the NMI of clusters and cameras is the measure of Song et al., "Exploring the Camera Bias of
    Person Re-identification", ICLR 2025 (arXiv 2502.10195).

    Args:
        neighbours: (N, 2) or more nearest images, the image itself among them.
        camids: (N,).
        labels: (N,) clusters; outliers do not count.
    """
    cameras, counts = np.unique(camids, return_counts=True)
    if len(cameras) < 2:
        return None
    others = neighbours.indices[:, :2] != np.arange(len(camids))[:, None]
    nearest = neighbours.indices[np.arange(len(camids)), others.argmax(axis=1)]
    same = float((camids[nearest] == camids).mean())
    by_chance = float((counts * (counts - 1)).sum() / (len(camids) * (len(camids) - 1)))
    if labels is None or labels.max(initial=OUTLIER) < 1:
        return CameraBias(same, by_chance)
    kept = labels != OUTLIER
    clusters, seen_by = labels[kept], camids[kept]
    rng = np.random.default_rng(0)
    shuffled = [normalized_mutual_info_score(clusters, rng.permutation(seen_by)) for _ in range(_SHUFFLES)]
    found = float(normalized_mutual_info_score(clusters, seen_by))
    return CameraBias(same, by_chance, found, float(np.mean(shuffled)))
