"""Slow and plain versions of every number the method defines, written from its specification alone.

Loops, sets and fractions on purpose: nothing here shares a trick, or a mistake, with the code it checks.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from fractions import Fraction

import numpy as np

Matrix = np.ndarray


# --- neighbours and k-reciprocal encodings ---


def nearest(features: Matrix, k: int) -> list[list[int]]:
    """The k rows of largest inner product, itself counted, equal ones by index."""
    rows = np.asarray(features, np.float64)
    ranking = []
    for row in rows:
        products = [float(np.dot(row, other)) for other in rows]
        ranking.append(sorted(range(len(rows)), key=lambda j: (-products[j], j))[:k])
    return ranking


def reciprocal_set(ranking: list[list[int]], i: int, k: int) -> set[int]:
    return {j for j in ranking[i][:k] if i in ranking[j][:k]}


def expanded_set(ranking: list[list[int]], i: int, k: int, k_half: int) -> set[int]:
    original = reciprocal_set(ranking, i, k)
    grown = set(original)
    for candidate in original:
        own = reciprocal_set(ranking, candidate, k_half)
        if 3 * len(own & original) > 2 * len(own):
            grown |= own
    return grown


def encodings(ranking: list[list[int]], distances: Matrix, k: int, k_half: int, k2: int) -> Matrix:
    """(N, N) weights: softmax of minus the distances over the set, then the mean of the k2 nearest."""
    count = len(ranking)
    weights = np.zeros((count, count))
    for i in range(count):
        members = sorted(expanded_set(ranking, i, k, k_half))
        exponentials = [math.exp(-distances[i, j]) for j in members]
        for j, value in zip(members, exponentials, strict=True):
            weights[i, j] = value / sum(exponentials)
    return np.array([np.mean([weights[j] for j in ranking[i][:k2]], axis=0) for i in range(count)])


def jaccard_of(weights: Matrix) -> Matrix:
    count = len(weights)
    distances = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            if i != j:
                minima = float(np.minimum(weights[i], weights[j]).sum())
                distances[i, j] = 1 - minima / (2 - minima)
    return distances


def squared_distances(features: Matrix) -> Matrix:
    rows = np.asarray(features, np.float64)
    return np.array([[float(((a - b) ** 2).sum()) for b in rows] for a in rows])


def jaccard_distance(features: Matrix, k1: int, k2: int) -> Matrix:
    k1, k2 = min(k1, len(features)), min(k2, len(features))
    ranking = nearest(features, len(features))
    return jaccard_of(encodings(ranking, squared_distances(features), k1, round(k1 / 2) + 1, k2))


def rerank_distance(queries: Matrix, gallery: Matrix, k1: int, k2: int, lambda_value: float) -> Matrix:
    """Over query + gallery; an image's distances are its squared ones, squared, over their maximum."""
    squared = squared_distances(np.concatenate([queries, gallery])) ** 2
    distances = np.array([row / row.max() for row in squared])
    count, q = len(distances), len(queries)
    ranking = [sorted(range(count), key=lambda j: (row[j], j)) for row in distances]
    jaccard = jaccard_of(encodings(ranking, distances, k1 + 1, round(k1 / 2) + 1, k2))
    return (1 - lambda_value) * jaccard[:q, q:] + lambda_value * distances[:q, q:]


# --- clustering ---


def agglomerate(distmat: Sequence[Sequence[float]], num_clusters: int) -> list[int]:
    """Average linkage in exact fractions; of equally near pairs the lowest smallest members."""
    exact = [[Fraction(value) for value in map(float, row)] for row in distmat]
    clusters = [[i] for i in range(len(exact))]  # each sorted, the list in order of smallest members
    while len(clusters) > num_clusters:
        candidates = []
        for a, left in enumerate(clusters):
            for b, right in enumerate(clusters[a + 1 :], a + 1):
                total = sum((exact[i][j] for i in left for j in right), Fraction(0))
                candidates.append((total / (len(left) * len(right)), left[0], right[0], a, b))
        *_, a, b = min(candidates)
        clusters[a] = sorted(clusters[a] + clusters[b])
        del clusters[b]
    labels = [0] * len(exact)
    for label, members in enumerate(clusters):
        for i in members:
            labels[i] = label
    return labels


def silhouette(distmat: Matrix, labels: Sequence[int]) -> float:
    values = []
    for i, own in enumerate(labels):
        mates = [j for j, label in enumerate(labels) if label == own and j != i]
        others = set(labels) - {own}
        if not mates or not others:
            values.append(0.0)
            continue
        inside = sum(float(distmat[i, j]) for j in mates) / len(mates)
        outside = min(
            sum(float(distmat[i, j]) for j, label in enumerate(labels) if label == other)
            / labels.count(other)
            for other in others
        )
        values.append((outside - inside) / max(inside, outside) if max(inside, outside) > 0 else 0.0)
    return sum(values) / len(values)


def neighbourhood_scores(indices: Matrix, similarities: Matrix, min_similarity: float) -> list[float]:
    distances = 1 - np.asarray(similarities, np.float64)
    mean = float(distances.mean())
    scores = []
    for i, row in enumerate(indices):
        linked = [n for n, j in enumerate(row) if j != i and similarities[i, n] >= min_similarity]
        scores.append(sum(1 / (float(distances[i, n]) + mean) for n in linked))
    return scores


def pivots(labels: Sequence[int], scores: Sequence[float], rule: str) -> list[int]:
    threshold = sum(scores) / len(scores)
    chosen = []
    for cluster in range(max(labels, default=-1) + 1):
        above = [i for i, label in enumerate(labels) if label == cluster and scores[i] > threshold]
        if not above:
            chosen.append(-1)
        elif rule == "last":
            chosen.append(above[-1])
        else:
            chosen.append(max(above, key=lambda i: (scores[i], -i)))
    return chosen


def refine(
    labels: Sequence[int], local: Sequence[int], camids: Sequence[int], chosen: Sequence[int]
) -> list[int]:
    refined = []
    for i, label in enumerate(labels):
        pivot = chosen[label] if label >= 0 else -1
        discard = pivot >= 0 and camids[i] == camids[pivot] and local[i] != local[pivot]
        refined.append(-1 if discard else label)
    return refined


def cluster_weights(labels: Sequence[int], camids: Sequence[int]) -> list[float]:
    weights = []
    for cluster in range(max(labels, default=-1) + 1):
        seen = [camids[i] for i, label in enumerate(labels) if label == cluster]
        shares = [seen.count(camera) / len(seen) for camera in set(seen)]
        weights.append(math.log(1 - sum(share * math.log(share) for share in shares)))
    return weights


def label_criterion(indices: Matrix, labels: Sequence[int], camids: Sequence[int]) -> Fraction:
    """Confirmed links, less what would be confirmed of as many random pairs, as a share of all links."""
    images = range(len(labels))

    def counted(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return [(i, j) for i, j in pairs if camids[i] != camids[j] or len(set(camids)) == 1]

    def confirmed(pairs: list[tuple[int, int]]) -> int:
        return sum(labels[i] == labels[j] != -1 for i, j in pairs)

    links = [(i, int(j)) for i in images for j in indices[i] if i != j]
    pairs = counted([(i, j) for i in images for j in images if i != j])
    chance = Fraction(confirmed(pairs), max(len(pairs), 1)) * len(counted(links))
    return (confirmed(counted(links)) - chance) / max(len(links), 1)


# --- agreement of labels with identities; outliers are clusters of their own ---


def without_outliers(labels: Sequence[int]) -> list[Hashable]:
    return [("alone", i) if label == -1 else int(label) for i, label in enumerate(labels)]


def pair_counts(labels: Sequence[int], pids: Sequence[int]) -> tuple[int, int, int]:
    """Pairs of one label and one identity, of one label, of one identity."""
    names = without_outliers(labels)
    both = same_label = same_pid = 0
    for i in range(len(names)):
        for j in range(i):
            both += names[i] == names[j] and pids[i] == pids[j]
            same_label += names[i] == names[j]
            same_pid += pids[i] == pids[j]
    return both, same_label, same_pid


def bcubed(labels: Sequence[int], pids: Sequence[int]) -> tuple[float, float]:
    names, count = without_outliers(labels), len(pids)
    precision = recall = 0.0
    for i in range(count):
        cluster = {j for j in range(count) if names[j] == names[i]}
        person = {j for j in range(count) if pids[j] == pids[i]}
        precision += len(cluster & person) / len(cluster)
        recall += len(cluster & person) / len(person)
    return precision / count, recall / count


# --- retrieval ---


def average_precision(matches: Sequence[bool], distances: Sequence[float]) -> float:
    """Sum over distinct distances of (rise of recall) x (precision so far)."""
    total, average, recall = sum(matches), 0.0, 0.0
    for threshold in sorted(set(distances)):
        taken = [match for match, value in zip(matches, distances, strict=True) if value <= threshold]
        average += (sum(taken) / total - recall) * (sum(taken) / len(taken))
        recall = sum(taken) / total
    return average


def retrieval(
    distmat: Matrix,
    q_pids: Sequence[int],
    g_pids: Sequence[int],
    q_camids: Sequence[int],
    g_camids: Sequence[int],
) -> tuple[float, list[float], int]:
    """mAP, CMC over all ranks of the gallery without junk, and the queries counted."""
    gallery = [j for j, pid in enumerate(g_pids) if pid != -1]
    precisions, first = [], []
    for q, (pid, camid) in enumerate(zip(q_pids, q_camids, strict=True)):
        kept = [j for j in gallery if not (g_pids[j] == pid and g_camids[j] == camid)]
        matches = [g_pids[j] == pid for j in kept]
        if pid == -1 or not any(matches):
            continue
        values = [float(distmat[q][j]) for j in kept]
        precisions.append(average_precision(matches, values))
        order = sorted(range(len(kept)), key=lambda n: (values[n], kept[n]))
        first.append(next(place for place, n in enumerate(order) if matches[n]))
    curve = [sum(place <= rank for place in first) / max(len(first), 1) for rank in range(len(gallery))]
    return sum(precisions) / max(len(precisions), 1), curve, len(precisions)
