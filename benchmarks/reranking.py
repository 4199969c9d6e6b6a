"""Seconds and memory of re-ranking, against the dense algorithm of the field's programs, in one run.

    python benchmarks/reranking.py --size market
    python benchmarks/reranking.py --size msmt17 --dim 512

Made-up features; every row is measured in a fresh process, its inputs not counted. The dense algorithm
(`dense_reranking.py`) is left out where its matrices would not fit into memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dense_reranking import dense_rerank_of, squared_distances
from measuring import SIZES, Size, machine, made_up, measured, table, write_json

from calr_cli.distances.knn import BLOCK_BYTES
from calr_cli.distances.rerank import rerank_blocks
from calr_cli.evaluation.ranking import metrics_of_blocks

K1, K2, LAMBDA = 20, 6, 0.3


def splits(size: Size, dim: int) -> tuple[Any, Any]:
    query = made_up(size.query, size.test_ids, size.cameras, dim, seed=1)
    return query, made_up(size.gallery, size.test_ids, size.cameras, dim, seed=2)


def products(size: Size, dim: int, device: str) -> Callable[[], Any]:
    """The products that re-ranking needs: all images with all, then queries with the gallery."""
    query, gallery = (torch.from_numpy(split.features).to(device) for split in splits(size, dim))
    everything = torch.cat([query, gallery])

    def run() -> None:
        for left, right in ((everything, everything), (query, gallery)):
            for block in torch.split(left, max(1, BLOCK_BYTES // (4 * len(right)))):
                block @ right.T

    return run


def ours(size: Size, dim: int, device: str, ranked: bool) -> Callable[[], Any]:
    """Re-ranking by blocks, and mAP if ``ranked``, without the whole matrix."""
    query, gallery = splits(size, dim)

    def run() -> tuple[float, np.ndarray]:
        kept: list[np.ndarray] = []

        def seen(block: np.ndarray) -> torch.Tensor:
            if not kept:
                kept.append(block[:20].copy())
            return torch.from_numpy(block)

        features = query.features, gallery.features
        blocks = map(seen, rerank_blocks(*features, K1, K2, LAMBDA, device=torch.device(device)))
        if not ranked:
            return sum(len(block) for block in blocks), kept[0]
        truth = query.pids, gallery.pids, query.camids, gallery.camids
        return metrics_of_blocks(blocks, (size.query, size.gallery), *truth).mAP, kept[0]

    return run


def dense(size: Size, dim: int) -> Callable[[], Any]:
    """The dense algorithm from the squared distances on."""
    query, gallery = splits(size, dim)
    distances = squared_distances(query.features, gallery.features)
    return lambda: dense_rerank_of(distances, size.query, K1, K2, LAMBDA)[:20]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=["tiny", "small", "market", "msmt17"], default="small")
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    size, count = SIZES[options.size], SIZES[options.size].query + SIZES[options.size].gallery
    with_dense = count < 30_000  # it holds three matrices of count x count
    rows: list[dict[str, Any]] = []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        product = measured(products, size, options.dim, device)
        rows.append(
            {
                "step": f"products alone, {device}",
                "seconds": product.seconds,
                "peak MB": product.peak_bytes / 1e6,
            }
        )
        for ranked in (False, True) if with_dense else (True,):
            whole = measured(ours, size, options.dim, device, ranked)
            result = f"with mAP ({100 * whole.value[0]:.2f})" if ranked else "without mAP"
            rows.append(
                {
                    "step": f"calr, {device}, {result}",
                    "seconds": whole.seconds,
                    "all but the products": whole.seconds - product.seconds,
                    "peak MB": whole.peak_bytes / 1e6,
                    "first": whole.value[1],
                }
            )
    if with_dense:
        theirs = measured(dense, size, options.dim)
        rows.append(
            {
                "step": "dense algorithm, without mAP",
                "all but the products": theirs.seconds,
                "peak MB": theirs.peak_bytes / 1e6,
            }
        )
        for row in (row for row in rows if "first" in row):
            row["time ratio"] = row["all but the products"] / theirs.seconds
            row["largest difference"] = f"{np.abs(row['first'] - theirs.value).max():.1e}"
    for row in rows:
        row.pop("first", None)
    columns = ["step", "seconds", "all but the products", "time ratio", "peak MB", "largest difference"]
    title = (
        f"Re-ranking, {options.size}: {size.query:,} x {size.gallery:,}, D {options.dim}, k1 {K1}, k2 {K2}"
    )
    print(machine())
    print(table(title, rows, columns))
    write_json(options.json, {"title": title, "rows": rows})


if __name__ == "__main__":
    main()
