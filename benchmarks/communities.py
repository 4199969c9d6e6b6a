"""The clusters of the recipe plus on a model's features: made by Infomap and by calr's own search.

Both get the same Jaccard similarities of the training images. The model is one of stage 1, of which stage 2
begins, or of the end of stage 2.

Run: python benchmarks/communities.py --resume model.pth -d market1501
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import machine, measured, table, write_json
from scipy import sparse

from calr_cli.clustering.communities import LOWEST_BAR, FindModules, jaccard_communities
from calr_cli.clustering.infomap import infomap_modules
from calr_cli.clustering.map_equation import map_equation_modules
from calr_cli.clustering.quality import label_quality
from calr_cli.config.loading import resolve_settings
from calr_cli.distances.camera_shift import standardise_by_camera
from calr_cli.distances.jaccard import jaccard_similarity
from calr_cli.events import SilentReporter
from calr_cli.method.build import build_extractor, build_pixels
from calr_cli.prepare.prepared import load_dataset
from calr_cli.training.checkpoint import load_model
from calr_cli.types import OUTLIER, Dataset, IntArray

WAYS: dict[str, FindModules] = {
    "Infomap": partial(infomap_modules, directed=False),
    "calr": map_equation_modules,
}


def features_of(model: Path, dataset: Dataset) -> np.ndarray:
    encoder, card = load_model(model)
    flags = {"data.height": ("", card.height), "data.width": ("", card.width)}
    settings, reporter = resolve_settings(dataset.name, None, (), flags).settings, SilentReporter()
    features = build_extractor(settings, reporter)(encoder, build_pixels(settings, dataset.train, reporter))
    return standardise_by_camera(features, dataset.train.camids)


def search(way: str, similarity: sparse.csr_array, options: Any) -> Callable[[], IntArray]:
    return partial(jaccard_communities, similarity, options.max_outliers, WAYS[way], options.min_cluster_size)


def compare(model: Path, dataset: Dataset) -> list[dict[str, Any]]:
    options = resolve_settings(dataset.name, None, recipe="plus").settings.inter.clustering
    features = features_of(model, dataset)
    similarity = jaccard_similarity(features, options.k1, options.k2, min_similarity=LOWEST_BAR)
    rows = []
    for way in WAYS:
        made = measured(search, way, similarity, options, threads=1)
        outliers, pids = made.value == OUTLIER, dataset.train.pids
        quality = label_quality(made.value, pids)
        clustered = label_quality(made.value[~outliers], pids[~outliers])
        rows.append(
            {
                "step": way,
                "seconds": made.seconds,
                "memory, MB": made.peak_bytes / 1e6,
                "clusters": quality.num_clusters,
                "outliers": int(outliers.sum()),
                "pair F": quality.pair_f,
                "pair F of the clustered": clustered.pair_f,
                "BCubed F": quality.bcubed_f,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resume", type=Path, required=True)
    parser.add_argument("-d", "--dataset", required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    rows = compare(options.resume, load_dataset(options.dataset))
    print(table(f"{options.dataset} ({machine()})", rows, list(rows[0])))
    write_json(options.json, {"communities": rows})


if __name__ == "__main__":
    main()
