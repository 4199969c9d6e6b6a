"""Judges the features of an epoch by their clusters and cameras, without identities."""

from __future__ import annotations

import numpy as np

from calr_cli.types import OUTLIER, IntArray, Neighbours


def label_criterion(neighbours: Neighbours, labels: IntArray, camids: IntArray) -> float:
    """How many links to neighbours join two cameras inside one cluster, beyond chance.

    What re-identification is for is finding an image again in another camera; so it is links between
    cameras that count, and of them those that the clustering confirms. What it would confirm of as many
    links drawn at random is taken away, so that one cluster of everything is worth nothing. Where there is
    one camera, all links count.

    It compares models of one run; how large it is differs between datasets and settings.

    Args:
        neighbours: (N, k).
        labels: (N,) global labels; outliers confirm nothing.
        camids: (N,).

    Returns:
        A share of all links below 1, the higher the better; 0 for no cluster and for one of everything.
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
    """Of different images with one label."""
    sizes = np.unique(labels, return_counts=True)[1].astype(np.float64)
    return float((sizes * (sizes - 1)).sum())
