"""Expected calibration error of a model's probabilities on the identities of a test set.

Fitted on identities and checked on others, label-free from clusters of the training images, and of the first
ranks of searches.

Run: python benchmarks/calibration.py --model model.pth -d market1501
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import machine, table, write_json

from calr_cli.config.loading import resolve_settings
from calr_cli.evaluation.calibration import EVEN_ODDS, Calibration
from calr_cli.events import SilentReporter
from calr_cli.method.build import build_extractor, build_pixels
from calr_cli.prepare.prepared import load_dataset
from calr_cli.runs.find import find_model
from calr_cli.training.checkpoint import load_model
from calr_cli.use.calibration import calibrate, calibrate_by_clusters

BINS, TOP = 10, 10


def expected_error(probability: np.ndarray, is_same: np.ndarray, weights: np.ndarray) -> float:
    """Mean distance of predicted and observed shares in bins of equal width."""
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    predicted, observed = (np.bincount(place, weights * v, BINS) for v in (probability, is_same))
    return float(np.abs(predicted - observed).sum() / weights.sum())


def first_ranks_error(calibration: Calibration, similarities: np.ndarray, is_same: np.ndarray) -> float:
    order = np.argsort(-similarities, axis=1)[:, :TOP]
    found, right = (np.take_along_axis(rows, order, axis=1).ravel() for rows in (similarities, is_same))
    counted = np.isfinite(found)
    prior = calibration.prior_of_search(similarities.shape[1])
    probability = calibration.probability(found[counted], prior)
    return expected_error(probability, right[counted], np.ones(counted.sum()))


def measure(model: Path, name: str) -> list[dict[str, Any]]:
    encoder, card = load_model(model)
    flags = {"data.height": ("", card.height), "data.width": ("", card.width)}
    settings = resolve_settings(name, None, (), flags).settings
    dataset, reporter = load_dataset(name), SilentReporter()
    q_features, g_features = (
        build_extractor(settings, reporter)(encoder, build_pixels(settings, images, reporter))
        for images in (dataset.query, dataset.gallery)
    )
    by_identities = calibrate(q_features, g_features, dataset)
    by_clusters = calibrate_by_clusters(settings, encoder, dataset, reporter)
    query, gallery = dataset.query, dataset.gallery
    is_same = query.pids[:, None] == gallery.pids
    is_own = is_same & (query.camids[:, None] == gallery.camids)
    similarities = np.where(is_own, -np.inf, q_features @ g_features.T)
    pairs, truth = similarities[~is_own], is_same[~is_own]
    weights = np.where(truth, 0.5 / truth.sum(), 0.5 / (~truth).sum())
    rows = [("identities, held-out identities", by_identities.reliability.error)]
    for source, calibration in (("identities", by_identities), ("clusters", by_clusters)):
        error = expected_error(calibration.probability(pairs, EVEN_ODDS), truth, weights)
        rows.append((f"{source}, all test pairs", error))
        rows.append((f"{source}, first {TOP} ranks", first_ranks_error(calibration, similarities, is_same)))
    return [{"step": step, "expected calibration error": error} for step, error in rows]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("-d", "--dataset", required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    rows = measure(find_model(options.model, None), options.dataset)
    print(table(f"{options.dataset} ({machine()})", rows, ["step", "expected calibration error"]))
    write_json(options.json, {"calibration": rows})


if __name__ == "__main__":
    main()
