"""Seconds and memory of mAP and CMC, against the ways the field's programs take, in one run.

    python benchmarks/evaluation.py --size market --dim 2048 --json evaluation.json

Every row is measured in a fresh process on the same made-up features; its inputs are not counted. All rows
that rank must give the same mAP and Rank-1.

``--compiled MODULE`` names an importable module with the field's compiled ranking, ``evaluate_cy`` of
Torchreid. The registry's torchreid package comes without it, source and all; that of fastreid has the source,
to be built with Cython. Where it is absent, so is its row.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import SIZES, MadeUp, Size, machine, made_up, measured, table, write_json
from sklearn.metrics import average_precision_score

from calr_cli.distances.euclidean import distance_blocks
from calr_cli.evaluation import ranking_metrics, retrieval_metrics

BLOCK_BYTES = 128 * 2**20
RANKS = 50
TOLERANCE = 1e-6
COMPILED_TOLERANCE = 1e-4  # it sums average precisions as float32

Scores = tuple[float, float]
"""mAP and Rank-1."""


# --- inputs ---


def splits(size: Size, queries: int, dim: int) -> tuple[MadeUp, MadeUp]:
    query = made_up(queries, size.test_ids, size.cameras, dim, seed=1)
    return query, made_up(size.gallery, size.test_ids, size.cameras, dim, seed=2)


def truth(query: MadeUp, gallery: MadeUp) -> tuple[np.ndarray, ...]:
    return query.pids, gallery.pids, query.camids, gallery.camids


def matrix(query: MadeUp, gallery: MadeUp) -> torch.Tensor:
    """(Q, G) squared distances, the same to the last bit as ours from features."""
    rows = torch.from_numpy(query.features), torch.from_numpy(gallery.features)
    distmat = torch.empty(len(query.features), len(gallery.features))
    done = 0
    for block in distance_blocks(*rows):
        distmat[done : done + len(block)] = block
        done += len(block)
    return distmat


# --- ours ---


def product(size: Size, queries: int, dim: int) -> Callable[[], None]:
    """The distance product alone, by blocks of queries into one memory."""
    query, gallery = (torch.from_numpy(split.features) for split in splits(size, queries, dim))
    rows = max(1, BLOCK_BYTES // (4 * len(gallery)))
    memory = torch.empty(min(rows, queries), len(gallery))

    def run() -> None:
        for block in torch.split(query, rows):
            torch.mm(block, gallery.T, out=memory[: len(block)])

    return run


def product_and_sort(size: Size, queries: int, dim: int) -> Callable[[], None]:
    """The product, and one sort of the values of every row."""
    query, gallery = (torch.from_numpy(split.features) for split in splits(size, queries, dim))
    rows = max(1, BLOCK_BYTES // (4 * len(gallery)))
    memory = torch.empty(min(rows, queries), len(gallery))

    def run() -> None:
        for block in torch.split(query, rows):
            torch.mm(block, gallery.T, out=memory[: len(block)]).numpy().sort(axis=1)

    return run


def from_features(size: Size, queries: int, dim: int, device: str = "cpu") -> Callable[[], Scores]:
    query, gallery = splits(size, queries, dim)
    if device == "cuda":
        torch.zeros(1, device=device)  # to start a GPU is not part of it

    def run() -> Scores:
        rows = (torch.from_numpy(split.features).to(device) for split in (query, gallery))
        metrics = retrieval_metrics(*rows, *truth(query, gallery))
        return metrics.mAP, metrics.rank(1)

    return run


def from_matrix(size: Size, queries: int, dim: int) -> Callable[[], Scores]:
    query, gallery = splits(size, queries, dim)
    distmat = matrix(query, gallery)

    def run() -> Scores:
        metrics = ranking_metrics(distmat, *truth(query, gallery))
        return metrics.mAP, metrics.rank(1)

    return run


# --- the field's ---


def argsort_and_loop(size: Size, queries: int, dim: int) -> Callable[[], Scores]:
    """The whole matrix put in order; per query what is left out, scikit-learn's AP and the first match."""
    query, gallery = splits(size, queries, dim)
    distmat = matrix(query, gallery).numpy()
    q_pids, g_pids, q_camids, g_camids = truth(query, gallery)

    def run() -> Scores:
        order = np.argsort(distmat, axis=1)
        precisions, hits = [], np.zeros(RANKS)
        for row, distances, pid, camid in zip(order, distmat, q_pids, q_camids, strict=True):
            pids = g_pids[row]
            is_match = pids == pid
            kept = (~is_match | (g_camids[row] != camid)) & (pids != -1)
            is_match = is_match[kept]
            if not is_match.any():
                continue
            precisions.append(average_precision_score(is_match, -distances[row][kept]))
            first = int(np.argmax(is_match))
            hits[first:] += 1
        return float(np.mean(precisions)), float(hits[0] / len(precisions))

    return run


def compiled_ranking(size: Size, queries: int, dim: int, module: str) -> Callable[[], Scores]:
    evaluate = importlib.import_module(module).evaluate_cy
    query, gallery = splits(size, queries, dim)
    distmat = matrix(query, gallery).numpy()

    def run() -> Scores:
        cmc, mean_precision, *_ = evaluate(distmat, *truth(query, gallery), RANKS)
        return float(np.mean(mean_precision)), float(cmc[0])

    return run


# --- the table ---


def has_compiled(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def ranking_rows(size: Size, queries: int, dim: int, threads: int, compiled: str) -> list[dict[str, Any]]:
    inputs = (size, queries, dim)
    steps: dict[str, tuple[Any, ...]] = {
        "distance product": (product, *inputs),
        "product and one value sort": (product_and_sort, *inputs),
        "calr, from features": (from_features, *inputs),
    }
    if torch.cuda.is_available():
        steps["calr, from features, cuda"] = (from_features, *inputs, "cuda")
    matrix_bytes = 4 * queries * size.gallery
    if matrix_bytes < 2**31:  # the argsort alone needs twice as much again
        steps["calr, from the matrix"] = (from_matrix, *inputs)
        steps["argsort and loop"] = (argsort_and_loop, *inputs)
        if has_compiled(compiled):
            steps["compiled ranking"] = (compiled_ranking, *inputs, compiled)
        else:
            print(f"no compiled ranking: {compiled} cannot be imported")
    else:
        print(f"nothing from a matrix: it would be of {matrix_bytes / 1e9:.1f} GB, its order of twice that")
    rows = []
    for name, (step, *arguments) in steps.items():
        result = measured(step, *arguments, threads=threads)
        row = {"step": name, "seconds": result.seconds, "peak MB": result.peak_bytes / 1e6}
        if result.value is not None:
            row |= {
                "mAP": f"{result.value[0]:.7f}",
                "Rank-1": f"{result.value[1]:.7f}",
                "scores": result.value,
            }
        rows.append(row)
        print(f"{name}: {result.seconds:.2f} s, {result.peak_bytes / 1e6:.0f} MB", flush=True)
    check_agreement(rows)
    return rows


def check_agreement(rows: list[dict[str, Any]]) -> None:
    scored = [row for row in rows if "scores" in row]
    for row in scored[1:]:
        tolerance = COMPILED_TOLERANCE if row["step"] == "compiled ranking" else TOLERANCE
        if not np.allclose(row["scores"], scored[0]["scores"], rtol=0, atol=tolerance):
            raise SystemExit(
                f"{row['step']} gives {row['scores']}, {scored[0]['step']} {scored[0]['scores']}"
            )


def ranking_targets(rows: list[dict[str, Any]], size_name: str) -> list[dict[str, Any]]:
    """The figures to reach: what is compared, the ratio found and the largest allowed."""
    seconds = {row["step"]: row["seconds"] for row in rows}
    peak = {row["step"]: row["peak MB"] for row in rows}
    ours, base = "calr, from the matrix", "product and one value sort"
    figures = []
    if size_name != "msmt17":
        for other, most in (("argsort and loop", 1 / 5), ("compiled ranking", 1 / 2)):
            if {ours, other} <= seconds.keys():
                figures.append((f"{ours} / {other}", seconds[ours] / seconds[other], most))
    figures.append((f"calr, from features / {base}", seconds["calr, from features"] / seconds[base], 2.0))
    figures.append(("calr, from features, peak GB", peak["calr, from features"] / 1e3, 3.0))
    return [
        {"figure": name, "found": found, "at most": most, "reached": "yes" if found <= most else "NO"}
        for name, found, most in figures
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=["tiny", "small", "market", "msmt17"], default="small")
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--queries", type=int, help="fewer than the size has")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compiled", default="torchreid.reid.metrics.rank_cylib.rank_cy", metavar="MODULE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    size = SIZES[options.size]
    queries = options.queries or size.query
    print(f"{machine()}; {options.threads} threads")
    rows = ranking_rows(size, queries, options.dim, options.threads, options.compiled)
    targets = ranking_targets(rows, options.size)
    title = f"{options.size}: {queries:,} x {size.gallery:,}, D {options.dim}, {options.threads} threads"
    print()
    print(table(title, rows, ["step", "seconds", "peak MB", "mAP", "Rank-1"]))
    print(table("Figures to reach", targets, ["figure", "found", "at most", "reached"]))
    write_json(options.json, {"title": title, "ranking": rows, "figures": targets})


if __name__ == "__main__":
    main()
