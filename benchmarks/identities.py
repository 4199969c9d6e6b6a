"""Identities by `calr cluster`, beside other clusterings that are told what nobody knows.

All get the same features, as the model gives them and standardised by camera. The eps of DBSCAN is the best
of a grid by the truth itself, and average linkage is told the true number of identities.

Run: python benchmarks/identities.py --model model.pth -d market1501
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import machine, table, write_json

from calr_cli.clustering import agglomerative_labels, label_quality
from calr_cli.clustering.dbscan import dbscan_labels
from calr_cli.config.loading import resolve_settings
from calr_cli.distances.camera_shift import standardise_by_camera
from calr_cli.distances.jaccard import jaccard_similarity
from calr_cli.events import SilentReporter
from calr_cli.method.inter import global_clusters
from calr_cli.prepare.prepared import load_dataset
from calr_cli.runs.find import find_model
from calr_cli.types import FloatArray, IntArray
from calr_cli.use.embedding import load_embedder
from calr_cli.use.identities import Fineness, find_identities
from calr_cli.use.piles import Pile, pile_of_dataset

NEIGHBOURS = ((30, 6), (20, 6))
"""k1 and k2 of the Jaccard distances of the others."""

EPS = np.arange(0.3, 0.8, 0.025)
MIN_SAMPLES = (2, 4)


def others(features: FloatArray, pids: IntArray, name: str) -> Iterator[tuple[str, IntArray]]:
    """Name and labels of each other way."""
    count = len(np.unique(pids))

    def linkage(distances: FloatArray) -> IntArray:
        np.fill_diagonal(distances, 0)
        return agglomerative_labels(distances, count)

    yield f"average linkage, true number, cosine, {name}", linkage(1 - features @ features.T)
    for k1, k2 in NEIGHBOURS:
        pairs = jaccard_similarity(features, k1, k2)
        what = f"Jaccard ({k1}, {k2}), {name}"
        yield f"average linkage, true number, {what}", linkage(1 - pairs.toarray())
        tried = ((eps, least, dbscan_labels(pairs, eps, least)) for eps in EPS for least in MIN_SAMPLES)
        eps, least, labels = max(tried, key=lambda one: label_quality(one[2], pids).bcubed_f)
        yield f"DBSCAN, best eps {eps:.3g} and least {least}, {what}", labels


def measure(pile: Pile, in_training: Callable[[Pile], IntArray]) -> list[dict[str, Any]]:
    assert pile.pids is not None
    settings, quiet, cpu = resolve_settings(None, None).settings, SilentReporter(), torch.device("cpu")

    def ours(fineness: Fineness) -> IntArray:
        return find_identities(settings, pile, fineness, None, cpu, quiet).labels

    shifted = standardise_by_camera(pile.features, pile.camids)
    ways = [
        *others(pile.features, pile.pids, "as they are"),
        *others(shifted, pile.pids, "by camera"),
        ("clusters of the recipe plus", in_training(pile)),
        ("calr cluster", ours(Fineness())),
        ("calr cluster, true number", ours(Fineness(count=len(np.unique(pile.pids))))),
    ]
    rows = []
    for name, labels in ways:
        found = label_quality(labels, pile.pids)
        figures = {
            key: getattr(found, key) for key in ("bcubed_f", "bcubed_precision", "bcubed_recall", "pair_f")
        }
        rows.append({"step": name, **figures, "identities": found.num_clusters})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("-d", "--dataset", required=True)
    parser.add_argument("--parts", nargs="+", choices=["even", "odd", "all"], default=["even", "odd", "all"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    embedder = load_embedder(find_model(options.model, None), device="cpu", settings={"precision": "fp32"})
    whole = pile_of_dataset(embedder, load_dataset(options.dataset), "test", SilentReporter())
    plus = resolve_settings(None, None, recipe="plus").settings

    def in_training(pile: Pile) -> IntArray:
        return global_clusters(plus, pile.features, pile.camids, torch.device("cpu"), SilentReporter())[0]

    content: dict[str, Any] = {}
    for part in options.parts:
        pile = whole if part == "all" else part_of(whole, part == "odd")
        assert pile.pids is not None
        content[part] = measure(pile, in_training)
        title = f"{part}: {len(pile.paths):,} images of {len(np.unique(pile.pids))} identities ({machine()})"
        print(table(title, content[part], list(content[part][0])), flush=True)
    write_json(options.json, content)


def part_of(pile: Pile, odd: bool) -> Pile:
    """The images of identities with odd numbers, or with even ones."""
    assert pile.pids is not None
    kept = np.flatnonzero(pile.pids % 2 == odd)
    return replace(
        pile,
        paths=tuple(pile.paths[n] for n in kept),
        digests=[pile.digests[n] for n in kept],
        features=pile.features[kept],
        cameras=tuple(pile.cameras[n] for n in kept),
        pids=pile.pids[kept],
    )


if __name__ == "__main__":
    main()
