"""Stage 1's clustering from sparse similarities: labels and silhouette of one camera, seconds and memory.

python benchmarks/linkage.py --images 100000 --pairs 3000
python benchmarks/linkage.py --against-dense --images 1000 2000 4000 8000

The first makes similarities that look like a camera's, of any size. The second takes the Jaccard distances of
made-up features (k1 30, k2 6) and clusters them both ways.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, made_up, measured, table, write_json
from scipy import sparse

from calr_cli.clustering.agglomerative import agglomerative_labels, silhouette
from calr_cli.distances import jaccard_distance

IMAGES_PER_IDENTITY, DIMENSIONS, AXES, ROWS_PER_BLOCK = 20, 12, 3, 256
GB = 1e9


def made_up_similarities(images: int, pairs: int, seed: int = 0) -> sparse.csr_array:
    """Up to ``pairs`` stored similarities per image: high within an identity, a long tail of low ones.

    Images are points around their identity's. Stored are the pairs that are near each other in the order
    along one of three axes, with a similarity that falls with their distance.
    """
    rng = np.random.default_rng(seed)
    identities = rng.normal(size=(max(1, images // IMAGES_PER_IDENTITY), DIMENSIONS))
    points = identities[rng.integers(len(identities), size=images)]
    points = (points + 0.5 * rng.normal(size=points.shape)).astype(np.float32)
    half = pairs // (2 * AXES)
    around = np.concatenate([np.arange(-half, 0), np.arange(1, half + 1)])
    orders = np.argsort(points[:, :AXES], axis=0).astype(np.int32)
    places = np.argsort(orders, axis=0)

    data, indices = np.empty(images * pairs, np.float32), np.empty(images * pairs, np.int32)
    indptr, end = np.zeros(images + 1, np.int32), 0
    for start in range(0, images, ROWS_PER_BLOCK):
        rows = np.arange(start, min(start + ROWS_PER_BLOCK, images))
        columns = np.concatenate(
            [orders[(places[rows, axis, None] + around) % images, axis] for axis in range(AXES)], axis=1
        )
        columns.sort(axis=1)
        first = np.ones(columns.shape, bool)
        first[:, 1:] = columns[:, 1:] != columns[:, :-1]
        columns, lengths = columns[first], first.sum(axis=1)
        squared = ((points[np.repeat(rows, lengths)] - points[columns]) ** 2).sum(axis=1)
        part = slice(end, end + len(columns))
        data[part], indices[part] = np.maximum(np.exp(-squared / 4), 1e-3), columns
        indptr[rows + 1] = end + np.cumsum(lengths)
        end = part.stop
    data.resize(end, refcheck=False)
    indices.resize(end, refcheck=False)
    return sparse.csr_array((data, indices, indptr), shape=(images, images))


def labels_then_silhouette(distances: Any, num_clusters: int) -> dict[str, float]:
    began = time.process_time()  # one thread computes: what else the machine does does not count
    labels = agglomerative_labels(distances, num_clusters)
    clustered = time.process_time()
    score = silhouette(distances, labels)
    return {
        "labels s": clustered - began,
        "silhouette s": time.process_time() - clustered,
        "silhouette": score,
    }


def made_up_camera(images: int, pairs: int, num_clusters: int) -> Callable[[], dict[str, float]]:
    similarities = made_up_similarities(images, pairs)
    return lambda: {
        **labels_then_silhouette(similarities, num_clusters),
        "pairs per image": similarities.nnz / images,
        "input GB": (similarities.data.nbytes + similarities.indices.nbytes) / GB,
    }


def jaccard_camera(images: int, dense: bool, num_clusters: int) -> Callable[[], dict[str, float]]:
    features = made_up(images, max(1, images // IMAGES_PER_IDENTITY), 1, 256, seed=1).features
    distances = jaccard_distance(features, 30, 6)
    similarities = sparse.csr_array(1 - distances - np.eye(images, dtype=np.float32))
    chosen: Any = distances if dense else similarities
    return lambda: {
        **labels_then_silhouette(chosen, num_clusters),
        "pairs per image": similarities.nnz / images,
        "input GB": (distances.nbytes if dense else 2 * similarities.data.nbytes) / GB,
    }


def row(images: int, what: str, step: Callable[..., Any], argument: int | bool, share: int) -> dict[str, Any]:
    run = measured(step, images, argument, max(1, images // share), threads=1)
    extra = run.peak_bytes / GB
    return {"images": images, "input": what, **run.value, "extra GB": extra}


COLUMNS = ["images", "input", "pairs per image", "labels s", "silhouette s", "input GB", "extra GB"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs="+", default=[20_000])
    parser.add_argument("--pairs", type=int, default=1_000, help="stored similarities per image, at most")
    parser.add_argument("--images-per-cluster", type=int, default=5)
    parser.add_argument("--against-dense", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows, share = [], options.images_per_cluster
    for images in options.images:
        if options.against_dense:
            rows += [row(images, "dense", jaccard_camera, True, share)]
            rows += [row(images, "sparse", jaccard_camera, False, share)]
        else:
            rows += [row(images, "sparse", made_up_camera, options.pairs, share)]
    print(table(f"Clustering of one camera, one core ({machine()})", rows, COLUMNS))
    write_json(options.json, {"linkage": rows})


if __name__ == "__main__":
    main()
