"""The cluster memory image by image, in NumPy, written from the method's specification alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Matrix = np.ndarray


def unit(vector: Matrix) -> Matrix:
    return vector / math.sqrt(float(np.dot(vector, vector)))


def memory_loss(
    memory: Matrix, features: Matrix, labels: Sequence[int], temperature: float, weights: Sequence[float]
) -> float:
    losses = []
    for row, label in zip(features, labels, strict=True):
        logits = [float(np.dot(unit(row), centroid)) / temperature for centroid in memory]
        top = max(logits)
        losses.append(top + math.log(sum(math.exp(v - top) for v in logits)) - logits[label])
    image_weights = [weights[label] for label in labels]
    if sum(image_weights) == 0:
        return sum(losses) / len(losses)
    return sum(w * loss for w, loss in zip(image_weights, losses, strict=True)) / sum(image_weights)


def memory_update(
    memory: Matrix, features: Matrix, labels: Sequence[int], momentum: float, mode: str
) -> Matrix:
    """Image by image in batch order; ``hard``: one image per cluster, least similar to the row before."""
    rows, before = memory.copy(), memory
    images = list(range(len(labels)))
    if mode == "hard":
        images = [
            min(
                (i for i in images if labels[i] == cluster),
                key=lambda i: (float(np.dot(before[cluster], unit(features[i]))), i),
            )
            for cluster in sorted(set(labels))
        ]
    for i in images:
        rows[labels[i]] = unit(momentum * rows[labels[i]] + (1 - momentum) * unit(features[i]))
    return rows
