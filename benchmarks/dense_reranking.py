"""k-reciprocal re-ranking as the field's programs compute it: dense (N, N) matrices and loops over images.

Written from the definition (Zhong et al., CVPR 2017, with the arithmetic in docs/method.md), to be measured
against. Running the file checks it against the golden numbers of the tests.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"


def dense_rerank(
    query: np.ndarray, gallery: np.ndarray, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> np.ndarray:
    """(Q, G) re-ranked distances of features (Q, D) and (G, D)."""
    return dense_rerank_of(squared_distances(query, gallery), len(query), k1, k2, lambda_value)


def squared_distances(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """(N, N) squared Euclidean distances over query and gallery, N = Q + G."""
    features = np.concatenate([query, gallery])
    squares = (features**2).sum(axis=1)
    distances: np.ndarray = features @ features.T
    distances *= -2
    distances += squares[:, None]
    distances += squares
    np.maximum(distances, 0, out=distances)
    return distances


def dense_rerank_of(
    distances: np.ndarray, num_queries: int, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> np.ndarray:
    """`dense_rerank` of squared distances (N, N), which it overwrites."""
    count, half = len(distances), round(k1 / 2) + 1
    distances **= 2
    distances /= distances.max(axis=1, keepdims=True)
    nearest = np.argpartition(distances, range(1, max(k1, k2) + 1), axis=1)

    halves = [reciprocal(nearest, i, half) for i in range(count)]
    weights = np.zeros((count, count), np.float32)
    for i in range(count):
        original = reciprocal(nearest, i, k1 + 1)
        sets = [original]
        for candidate in original:
            own = halves[candidate]
            if len(np.intersect1d(own, original, assume_unique=True)) > 2 / 3 * len(own):
                sets.append(own)
        members = np.unique(np.concatenate(sets))
        exponentials = np.exp(-distances[i, members])
        weights[i, members] = exponentials / exponentials.sum()
    original_distances = distances[:num_queries, num_queries:].copy()
    if k2 > 1:
        averaged = np.empty_like(weights)
        for i in range(count):
            averaged[i] = weights[nearest[i, :k2]].mean(axis=0)
        weights = averaged
    del nearest

    weighing = [np.flatnonzero(weights[:, column]) for column in range(count)]  # the inverted index
    jaccard = np.empty((num_queries, count - num_queries), np.float32)
    for i in range(num_queries):
        minima = np.zeros(count, np.float32)
        for column in np.flatnonzero(weights[i]):
            rows = weighing[column]
            minima[rows] += np.minimum(weights[i, column], weights[rows, column])
        jaccard[i] = (1 - minima / (2 - minima))[num_queries:]
    return (1 - lambda_value) * jaccard + lambda_value * original_distances


def reciprocal(nearest: np.ndarray, i: int, k: int) -> np.ndarray:
    """The first ``k`` of image i that have it among their own first ``k``."""
    forward = nearest[i, :k]
    mutual: np.ndarray = forward[(nearest[forward, :k] == i).any(axis=1)]
    return mutual


def check_golden() -> None:
    """Raise AssertionError where the golden re-ranking is not reproduced to 1e-5."""
    for path in sorted(GOLDEN.glob("pipeline_*.npz")):
        golden = np.load(path)
        found = dense_rerank(golden["features"][golden["query"]], golden["features"][golden["gallery"]])
        np.testing.assert_allclose(found, golden["rerank_distance_20_6_0.3"], atol=1e-5)
        print(f"{path.name}: {found.shape[0]} x {found.shape[1]} re-ranked distances as they should be")


if __name__ == "__main__":
    check_golden()
