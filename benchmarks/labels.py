"""The label step: Jaccard against the peers' dense algorithm, stage 2's labels, the memory update.

    python benchmarks/labels.py --size market
    python benchmarks/labels.py --size msmt17 --only labels
    python benchmarks/labels.py --size big --dim 512 --only labels

Made-up features; each step runs in a fresh process, which gives its seconds and how much memory it took on
top of its inputs. The peers' algorithm is written here from its definition, as the programs of this family
run it (dense V, inverted index, a vectorised minimum per column), and is checked against our distances.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from measuring import SIZES, machine, made_up, measured, table, write_json

from calr_cli.clustering.centroids import cluster_centroids
from calr_cli.clustering.infomap import infomap_labels
from calr_cli.clustering.pivots import neighbourhood_scores, select_pivots
from calr_cli.clustering.refinement import refine_by_camera
from calr_cli.clustering.weights import cluster_weights
from calr_cli.distances.jaccard import encode_features, jaccard_similarity
from calr_cli.distances.knn import BLOCK_BYTES, knn
from calr_cli.training.memory import ClusterMemory
from calr_cli.types import Neighbours

K1, K2 = 30, 6


def load(folder: Path) -> tuple[np.ndarray, Neighbours]:
    found = np.load(folder / "neighbours.npz")
    return np.load(folder / "features.npy"), Neighbours(found["indices"], found["similarities"])


# --- Jaccard ---


def dense_jaccard(features: np.ndarray, ranking: np.ndarray, k1: int, k2: int) -> np.ndarray:
    """The peers' algorithm: two dense N x N matrices."""
    count = len(features)

    def reciprocal(i: int, k: int) -> np.ndarray:
        forward = ranking[i, :k]
        mutual: np.ndarray = forward[(ranking[forward, :k] == i).any(axis=1)]
        return mutual

    half = round(k1 / 2) + 1
    sets = [reciprocal(i, k1) for i in range(count)]
    halves = [reciprocal(i, half) for i in range(count)]
    weights = np.zeros((count, count), np.float32)
    for i in range(count):
        expanded = sets[i]
        for candidate in sets[i]:
            own = halves[candidate]
            if len(np.intersect1d(own, sets[i], assume_unique=True)) > 2 / 3 * len(own):
                expanded = np.append(expanded, own)
        expanded = np.unique(expanded)
        row = np.exp(2 * (features[expanded] @ features[i]) - 2)
        weights[i, expanded] = row / row.sum()
    if k2 > 1:
        averaged = np.empty_like(weights)
        for i in range(count):
            averaged[i] = weights[ranking[i, :k2]].mean(axis=0)
        weights = averaged
    inverted = [np.flatnonzero(weights[:, i]) for i in range(count)]
    distances = np.empty((count, count), np.float32)
    for i in range(count):
        minima = np.zeros(count, np.float32)
        for column in np.flatnonzero(weights[i]):
            images = inverted[column]
            minima[images] += np.minimum(weights[i, column], weights[images, column])
        distances[i] = 1 - minima / (2 - minima)
    return distances


def dense_step(folder: Path) -> Callable[[], Any]:
    features, found = load(folder)

    def run() -> np.ndarray:
        distances = dense_jaccard(features, found.indices, K1, K2)
        return distances[:: max(1, len(distances) // 50)]

    return run


def encoding_step(folder: Path) -> Callable[[], Any]:
    features, found = load(folder)
    return lambda: encode_features(features, K1, K2, found).nnz


def sparse_step(folder: Path) -> Callable[[], Any]:
    features, found = load(folder)

    def run() -> tuple[np.ndarray, int]:
        similarity = jaccard_similarity(features, K1, K2, neighbours=found)
        return 1 - similarity[:: max(1, len(features) // 50)].toarray(), similarity.nnz

    return run


def jaccard_rows(folder: Path, count: int, dense: bool) -> list[dict[str, Any]]:
    encoding = measured(encoding_step, folder)
    ours = measured(sparse_step, folder)
    distances, pairs = ours.value
    rows: list[dict[str, Any]] = [
        {"step": "encoding", "seconds": encoding.seconds, "peak MB": encoding.peak_bytes / 1e6},
        {
            "step": f"encoding and {pairs / count:,.0f} pairs an image",
            "seconds": ours.seconds,
            "peak MB": ours.peak_bytes / 1e6,
        },
    ]
    if dense:
        theirs = measured(dense_step, folder)
        other = theirs.value
        other[np.arange(len(other)), np.arange(0, count, max(1, count // 50))] = (
            1  # our diagonal is not stored
        )
        difference = float(np.abs(distances - other).max())
        rows.append(
            {"step": "dense algorithm", "seconds": theirs.seconds, "peak MB": theirs.peak_bytes / 1e6}
        )
        for row in rows[:2]:
            row["time ratio"] = row["seconds"] / theirs.seconds
            row["memory ratio"] = row["peak MB"] * 1e6 / theirs.peak_bytes
        rows[1]["largest difference"] = f"{difference:.1e}"
    return rows


# --- the labels of one epoch of stage 2 ---


def product_step(folder: Path, device: str) -> Callable[[], Any]:
    rows = torch.from_numpy(np.load(folder / "features.npy")).to(device)

    def run() -> float:
        block = max(1, BLOCK_BYTES // (4 * len(rows)))
        return sum(float((part @ rows.T)[0, 0]) for part in torch.split(rows, block))

    return run


def labels_step(folder: Path, backend: Literal["faiss", "torch"], device: str) -> Callable[[], Any]:
    features, truth = np.load(folder / "features.npy"), np.load(folder / "truth.npz")
    camids = truth["camids"]
    # Local labels of a middling stage 1: identities per camera, a third of the images in another cluster.
    local = truth["pids"] * 64 + camids
    moved = np.random.default_rng(1).random(len(local)) < 1 / 3
    local = np.where(moved, np.roll(local, 1), local)

    def run() -> dict[str, float]:
        seconds: dict[str, float] = {}
        began = time.perf_counter()

        def lap(name: str) -> None:
            nonlocal began
            seconds[name] = time.perf_counter() - began
            began = time.perf_counter()

        neighbours = knn(features, 15, backend=backend, device=torch.device(device))
        lap("k-NN")
        labels = infomap_labels(neighbours, 0.4)
        lap("Infomap")
        pivots = select_pivots(labels, neighbourhood_scores(neighbours, 0.4))
        lap("pivots")
        refined = refine_by_camera(labels, local, camids, pivots)
        lap("refinement")
        cluster_centroids(features, refined)
        lap("centroids")
        cluster_weights(refined, camids)
        lap("weights")
        return {**seconds, "clusters": int(labels.max()) + 1}

    return run


def label_rows(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        product = measured(product_step, folder, device)
        rows.append(
            {
                "step": f"matrix product alone, {device}",
                "seconds": product.seconds,
                "peak MB": product.peak_bytes / 1e6,
            }
        )
        for backend in ("faiss", "torch"):
            whole = measured(labels_step, folder, backend, device)
            clusters = whole.value.pop("clusters")
            total = sum(whole.value.values())
            rows.append(
                {
                    "step": f"label step, {backend}, {device}, {clusters} clusters",
                    "seconds": whole.seconds,
                    "peak MB": whole.peak_bytes / 1e6,
                }
            )
            rows += [
                {"step": f"- {name}", "seconds": seconds, "share": seconds / total}
                for name, seconds in whole.value.items()
            ]
            rows[-len(whole.value)]["of the product"] = whole.value["k-NN"] / product.seconds
    return rows


# --- the memory update ---


def update_step(how: str, clusters: int, per_cluster: int, dim: int, rows: int) -> Callable[[], Any]:
    generator = torch.Generator().manual_seed(0)
    centroids = torch.nn.functional.normalize(torch.randn(rows, dim, generator=generator))
    labels = torch.randperm(rows, generator=generator)[:clusters].repeat_interleave(per_cluster)
    labels = labels[torch.randperm(len(labels), generator=generator)]
    features = torch.nn.functional.normalize(torch.randn(len(labels), dim, generator=generator))
    memory = ClusterMemory(centroids)

    def image_by_image() -> None:
        for feature, label in zip(torch.nn.functional.normalize(features), labels.tolist(), strict=True):
            memory.centroids[label] = 0.1 * memory.centroids[label] + 0.9 * feature
            memory.centroids[label] /= memory.centroids[label].norm()

    def run() -> tuple[float, np.ndarray]:
        step = image_by_image if how == "image by image" else lambda: memory.update(features, labels)
        step()
        first = memory.centroids.numpy().copy()
        times = []
        for _ in range(50):
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
        return float(np.median(times)), first

    return run


def update_rows() -> list[dict[str, Any]]:
    shape = (16, 16, 2048, 600)
    theirs, ours = (measured(update_step, how, *shape).value for how in ("image by image", "batched"))
    return [
        {"step": "image by image", "milliseconds": 1e3 * theirs[0]},
        {
            "step": "batched",
            "milliseconds": 1e3 * ours[0],
            "time ratio": ours[0] / theirs[0],
            "largest difference": f"{np.abs(ours[1] - theirs[1]).max():.1e}",
        },
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="market")
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--only", choices=["jaccard", "labels", "update"])
    parser.add_argument("--no-dense", action="store_true", help="leave the peers' algorithm out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    size = SIZES[options.size]
    title = f"{options.size}: {size.train:,} images, D {options.dim}"
    print(machine(), flush=True)
    result: dict[str, Any] = {"size": options.size, "dim": options.dim}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = made_up(size.train, size.train_ids, size.cameras, options.dim, seed=1)
        np.save(folder / "features.npy", data.features)
        np.savez(folder / "truth.npz", pids=data.pids, camids=data.camids)
        if options.only in (None, "jaccard"):
            found = knn(data.features, K1)
            np.savez(folder / "neighbours.npz", indices=found.indices, similarities=found.similarities)
            result["jaccard"] = jaccard_rows(folder, size.train, not options.no_dense)
            columns = ["step", "seconds", "peak MB", "time ratio", "memory ratio", "largest difference"]
            print(
                table(
                    f"Jaccard without the k-NN search, k1 {K1}, k2 {K2}, {title}", result["jaccard"], columns
                )
            )
        if options.only in (None, "labels"):
            result["labels"] = label_rows(folder)
            columns = ["step", "seconds", "share", "of the product", "peak MB"]
            print(table(f"Labels of an epoch of stage 2, {title}", result["labels"], columns))
    if options.only in (None, "update"):
        result["update"] = update_rows()
        columns = ["step", "milliseconds", "time ratio", "largest difference"]
        print(table("Memory update, 16 clusters x 16 images, D 2048, 600 rows", result["update"], columns))
    write_json(options.json, result)


if __name__ == "__main__":
    main()
