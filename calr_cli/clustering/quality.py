"""How well pseudo labels agree with known identities."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.metrics import normalized_mutual_info_score

from calr_cli.figures import LabelQuality
from calr_cli.types import OUTLIER, IntArray


def label_quality(
    pseudo_labels: npt.ArrayLike, pids: npt.ArrayLike, camids: npt.ArrayLike | None = None
) -> LabelQuality:
    """Pairwise and BCubed precision, recall and F, and NMI of pseudo labels against identities.

    Args:
        pseudo_labels: (N,) labels; every ``OUTLIER`` counts as a cluster of its own.
        pids: (N,) identities, all known.
        camids: (N,) cameras. If given, each figure is the mean of its values per camera, weighted by the
            cameras' numbers of images (counts are sums). Use it for local labels, which say nothing across
            cameras. Without it, all images are measured together.

    Without any pairs, precision and recall are 1; F of two zeros is 0.

    >>> quality = label_quality([0, 0, 1, -1], [5, 5, 5, 6])
    >>> quality.pair_precision, round(quality.pair_recall, 3)
    (1.0, 0.333)
    """
    labels, identities = np.asarray(pseudo_labels), np.asarray(pids)
    if camids is None:
        return _quality(labels, identities)
    cameras = np.asarray(camids)
    parts = [_quality(labels[cameras == c], identities[cameras == c]) for c in np.unique(cameras)]
    share = np.array([part.num_images for part in parts]) / len(labels)
    figures: dict[str, Any] = {}
    for name in (field.name for field in fields(LabelQuality)):
        values = np.array([getattr(part, name) for part in parts])
        figures[name] = int(values.sum()) if name.startswith("num_") else float((values * share).sum())
    return LabelQuality(**figures)


def _quality(labels: IntArray, pids: IntArray) -> LabelQuality:
    outliers = labels == OUTLIER
    labels = labels.copy()
    labels[outliers] = labels.max(initial=0) + 1 + np.arange(outliers.sum())
    clusters, label = np.unique(labels, return_inverse=True)
    identities, pid = np.unique(pids, return_inverse=True)
    shared = sparse.csr_array(
        (np.ones(len(labels)), (label, pid)), shape=(len(clusters), len(identities))
    ).tocoo()  # images of each (cluster, identity)
    both = shared.data
    cluster_size, pid_size = np.bincount(label), np.bincount(pid)

    agreeing = _pairs(both)
    pair_precision = _share(agreeing, _pairs(cluster_size))
    pair_recall = _share(agreeing, _pairs(pid_size))
    bcubed_precision = float((both**2 / cluster_size[shared.row]).sum() / len(labels))
    bcubed_recall = float((both**2 / pid_size[shared.col]).sum() / len(labels))
    return LabelQuality(
        pair_precision=pair_precision,
        pair_recall=pair_recall,
        pair_f=_f_score(pair_precision, pair_recall),
        bcubed_precision=bcubed_precision,
        bcubed_recall=bcubed_recall,
        bcubed_f=_f_score(bcubed_precision, bcubed_recall),
        nmi=float(normalized_mutual_info_score(pid, label)),
        num_clusters=len(clusters) - int(outliers.sum()),
        num_singletons=int((cluster_size == 1).sum()) - int(outliers.sum()),
        num_identities=len(identities),
        num_images=len(labels),
    )


def _pairs(sizes: npt.NDArray[np.floating] | IntArray) -> float:
    return float((sizes * (sizes - 1)).sum() / 2)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 1.0


def _f_score(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
