"""Judges the features of an epoch by their clusters and cameras, without identities."""

from __future__ import annotations

import numpy as np

from calr_cli.types import OUTLIER, IntArray, Neighbours


def label_criterion(neighbours: Neighbours, labels: IntArray, camids: IntArray) -> float:
    """The share of links to neighbours that join two cameras inside one cluster, beyond chance.

    Re-identification finds an image again in another camera. So only links between cameras count, and of
    these only the links inside a cluster. The share that the same number of random links would have is
    subtracted, so that one cluster of all images is worth nothing. If there is only one camera, all links
    count.

    The criterion compares models of one run; its level differs between datasets and settings.

    Args:
        neighbours: (N, k).
        labels: (N,) global labels; links of outliers are not inside a cluster.
        camids: (N,).

    Returns:
        A share of all links below 1; higher is better. 0 for no cluster and for one cluster of all images.
    """
    rows = np.arange(len(labels))[:, None]
    counted = neighbours.indices != rows
    links = max(int(counted.sum()), 1)
    if several := len(np.unique(camids)) > 1:
        counted &= camids[neighbours.indices] != camids[:, None]
    kept = labels != OUTLIER
    confirmed = counted & kept[:, None] & (labels[neighbours.indices] == labels[:, None])
    groups, everything = labels[kept], np.zeros(len(labels), np.int64)
    pairs, within = _ordered_pairs(everything), _ordered_pairs(groups)
    if several:
        pairs -= _ordered_pairs(camids)
        within -= _ordered_pairs(groups * (camids.max() + 1) + camids[kept])
    by_chance = int(counted.sum()) * within / max(pairs, 1)
    return (int(confirmed.sum()) - by_chance) / links


def _ordered_pairs(labels: IntArray) -> float:
    """The number of ordered pairs of different images with the same label."""
    sizes = np.unique(labels, return_counts=True)[1].astype(np.float64)
    return float((sizes * (sizes - 1)).sum())
