"""Who is who: images grouped into identities, and how sure each of them is of its group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from calr_cli.clustering.agglomerative import agglomerative_labels
from calr_cli.clustering.communities import LOWEST_BAR, jaccard_communities
from calr_cli.clustering.sparse_linkage import linkage_above
from calr_cli.config.schema import Settings
from calr_cli.distances.camera_shift import standardise_by_camera
from calr_cli.distances.jaccard import jaccard_similarity
from calr_cli.distances.knn import knn
from calr_cli.distances.pairs import similar_pairs
from calr_cli.distances.whitening import whiten_within
from calr_cli.errors import ConfigError
from calr_cli.evaluation.calibration import Calibration
from calr_cli.evaluation.camera_bias import CameraBias, camera_bias
from calr_cli.events import Reporter
from calr_cli.method.build import search_neighbours
from calr_cli.method.clusters import community_search
from calr_cli.method.estimates import block_bytes, memory_limit
from calr_cli.method.inter import global_clusters
from calr_cli.types import OUTLIER, FloatArray, IntArray, Neighbours
from calr_cli.use.duplicates import duplicates_of
from calr_cli.use.piles import Pile

K1, K2, LEAST_SIMILARITY = 20, 6, 0.2
"""Of the rule: neighbours that Jaccard similarities are made of, and the average one that joins two groups.

Chosen on the test identities with even numbers of the 375/175 split of Market-1501; see docs/results.md.
"""

MAX_OUTLIERS, MIN_CLUSTER_SIZE, FIRST_K1 = 0.25, 5, 30
"""Of the first clusters that the rule makes, those of the recipe plus."""

LEAST_PROBABILITY = 0.01
"""Pairs with a lower probability of showing the same count as certainly different."""

_NEAREST_IDENTITIES = 6


@dataclass(frozen=True)
class Fineness:
    """How many identities there are to be; without any of it, as many as the rule finds.

    Attributes:
        same: Average probability of showing the same from which groups are put together.
        count: The number of identities.
        as_in_training: Take the clusters that stage 2 would make with the settings.
        min_images: The images of smaller groups are outliers.
    """

    same: float | None = None
    count: int | None = None
    as_in_training: bool = False
    min_images: int = 2


@dataclass(frozen=True)
class Identities:
    """The images of a pile in K identities, the largest first.

    Attributes:
        pile: The N images.
        labels: (N,) 0..K-1, or ``OUTLIER``.
        confidence: (N,) in 0..1; see `confidences`.
        repeats: Of each image the one that it repeats; None: it repeats none.
        bias: How far neighbours and identities follow cameras; None: there is one camera.
    """

    pile: Pile
    labels: IntArray
    confidence: FloatArray
    repeats: list[int | None]
    bias: CameraBias | None

    @property
    def sizes(self) -> IntArray:
        """(K,) images of each identity."""
        sizes: IntArray = np.bincount(self.labels[self.labels != OUTLIER])
        return sizes


def find_identities(
    settings: Settings,
    pile: Pile,
    fineness: Fineness,
    calibration: Calibration | None,
    device: torch.device,
    reporter: Reporter,
) -> Identities:
    """Group images into identities.

    Names and order do not matter: the images are clustered in the order of their content, as in training.

    Args:
        settings: Of clusters, neighbours and memory.
        pile: The images.
        fineness: How many identities.
        calibration: Of the model; needed for ``fineness.same``.
        device: Where products are computed.
        reporter: Told what happens.

    Raises:
        ConfigError: More identities than images, or FAISS or Infomap is asked for and not installed.
        DataError: A feature that is not a finite number.
        MemoryLimitError: Something does not fit into the memory allowed.
    """
    count = len(pile.paths)
    if fineness.count is not None and fineness.count > count:
        raise ConfigError(
            f"--num-identities {fineness.count}: there are only {count:,} images", "Give a lower number"
        )
    order = np.array(sorted(range(count), key=lambda n: (pile.digests[n], pile.paths[n])))
    features, camids = pile.features[order], pile.camids[order]
    found = search_neighbours(settings, features, settings.inter.clustering.k, device, reporter)
    with reporter.progress("identities", 0):
        if fineness.same is not None:
            assert calibration is not None
            ordered = by_probability(settings, features, fineness.same, calibration, device)
        elif fineness.as_in_training:
            ordered = global_clusters(settings, features, camids, device, reporter)[0]
        else:
            ordered = by_rule(settings, features, camids, fineness.count, device, reporter)
    back = np.argsort(order)
    labels = largest_first(ordered[back], fineness.min_images)
    near = Neighbours(order[found.indices][back], found.similarities[back])
    repeats = duplicates_of(pile.paths, pile.digests, near)
    return Identities(
        pile, labels, confidences(near, labels), repeats, camera_bias(near, pile.camids, labels)
    )


def by_rule(
    settings: Settings,
    features: FloatArray,
    camids: IntArray,
    count: int | None,
    device: torch.device,
    reporter: Reporter,
) -> IntArray:
    """Average linkage on Jaccard similarities of features from which cameras and poses are taken out.

    First clusters, those of the recipe ``plus``, say in which directions the images of an identity vary;
    these directions then count less (`whiten_within`).

    Args:
        settings: Of neighbours and memory.
        features: (N, D) unit rows.
        camids: (N,).
        count: Number of identities; None: groups are joined from `LEAST_SIMILARITY` on.
        device: Where neighbours are searched.
        reporter: Told what happens.

    Returns:
        (N,) labels 0..K-1.
    """
    limit = memory_limit(settings)

    def similarity(rows: FloatArray, k1: int, least: float) -> sparse.csr_array:
        near = search_neighbours(settings, rows, k1, device, reporter)
        return jaccard_similarity(
            rows, k1, K2, neighbours=near, min_similarity=least, memory_limit=limit, reporter=reporter
        )

    rows = standardise_by_camera(features, camids)
    similar = similarity(rows, FIRST_K1, LOWEST_BAR)
    first = jaccard_communities(similar, MAX_OUTLIERS, community_search(), MIN_CLUSTER_SIZE)
    pairs = similarity(whiten_within(rows, first), K1, 0.0)
    return linkage_above(pairs, LEAST_SIMILARITY) if count is None else agglomerative_labels(pairs, count)


def by_probability(
    settings: Settings, features: FloatArray, same: float, calibration: Calibration, device: torch.device
) -> IntArray:
    """Average linkage on the probabilities that two images show the same.

    The prior is that of a search among the images (`Calibration.prior_of_search`).

    Args:
        settings: Of memory.
        features: (N, D) unit rows, as they were calibrated.
        same: Average probability from which two groups are put together.
        calibration: Of the model.
        device: Where products are computed.

    Returns:
        (N,) labels 0..K-1.
    """
    prior, limit = calibration.prior_of_search(len(features)), memory_limit(settings)
    least = calibration.similarity_at(LEAST_PROBABILITY, prior)
    pairs = similar_pairs(features, least, memory_limit=limit, device=device, block_bytes=block_bytes(limit))
    pairs.data = calibration.probability(pairs.data, prior).astype(np.float32)
    return linkage_above(pairs, same)


def largest_first(labels: IntArray, min_images: int = 1) -> IntArray:
    """Groups numbered by size, of equal ones by their first image; those that are too small are outliers."""
    named, first, number, sizes = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    kept = (named != OUTLIER) & (sizes >= min_images)
    order = np.lexsort((first, -sizes, ~kept))
    places = np.empty(len(named), np.int64)
    places[order] = np.arange(len(named))
    places[~kept] = OUTLIER
    return places[number]


def confidences(near: Neighbours, labels: IntArray) -> FloatArray:
    """The share of each image's nearest images that are of its identity.

    As many of the k nearest count as the identity has other images; so an image of a pair is sure if the
    other one is its nearest.

    Args:
        near: (N, k) neighbours, the images themselves among them.
        labels: (N,), 0..K-1 or ``OUTLIER``.

    Returns:
        (N,) float32 in 0..1; 0 for outliers.
    """
    itself = near.indices == np.arange(len(labels))[:, None]
    itself[~itself.any(axis=1), -1] = True  # equal images may push it out of its own neighbours
    others = near.indices[~itself].reshape(len(labels), -1)
    sizes = np.bincount(labels[labels != OUTLIER], minlength=1)
    counted = np.minimum(np.where(labels == OUTLIER, 0, sizes[labels] - 1), others.shape[1])
    agrees = (labels[others] == labels[:, None]) & (np.arange(others.shape[1]) < counted[:, None])
    shares: FloatArray = (agrees.sum(axis=1) / np.maximum(counted, 1)).astype(np.float32)
    return shares


def closest_pairs(features: FloatArray, labels: IntArray, count: int) -> list[tuple[int, int, float]]:
    """The pairs of identities that look most like one, and the mean similarity of their images.

    Args:
        features: (N, D) unit rows.
        labels: (N,), 0..K-1 or ``OUTLIER``.
        count: Pairs wanted.

    Returns:
        At most ``count`` of (identity, identity of a higher number, mean inner product), most similar first.
    """
    kept = labels != OUTLIER
    sizes = np.bincount(labels[kept])
    if len(sizes) < 2:
        return []
    means = np.zeros((len(sizes), features.shape[1]), np.float32)
    np.add.at(means, labels[kept], features[kept])
    means /= np.maximum(sizes, 1)[:, None]
    near = knn(means, min(len(sizes), _NEAREST_IDENTITIES))
    first = np.repeat(np.arange(len(sizes)), near.k)
    second, values = near.indices.ravel(), near.similarities.ravel()
    pairs = {
        (min(a, b), max(a, b)): float(value)
        for a, b, value in zip(first.tolist(), second.tolist(), values.tolist(), strict=True)
        if a != b
    }
    ranked = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
    return [(a, b, value) for (a, b), value in ranked[:count]]
