"""Retrieval quality of a model on a dataset's query and gallery."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from calr_cli.config.schema import Settings
from calr_cli.data.loaders import PixelSource
from calr_cli.distances.rerank import rerank_blocks
from calr_cli.distributed import collectives
from calr_cli.errors import DataError
from calr_cli.evaluation.ranking import metrics_of_blocks
from calr_cli.evaluation.retrieval import retrieval_metrics
from calr_cli.events import Reporter
from calr_cli.method.build import build_extractor, build_pixels
from calr_cli.method.estimates import block_bytes, memory_limit, tell_estimate
from calr_cli.models.encoder import Encoder
from calr_cli.training.checkpoint import ModelCard
from calr_cli.types import Dataset, FloatArray


def require_test_set(dataset: Dataset) -> None:
    """Raise unless there are queries and a gallery with identities.

    Raises:
        DataError: There are not.
    """
    query, gallery = dataset.query, dataset.gallery
    if not len(query) or not len(gallery):
        raise DataError(
            f"nothing to test on: {dataset.name} has {len(query)} query and {len(gallery)} gallery images",
            "Prepare it with a pid group and --split 0.5, or a csv with columns pid and split",
        )
    if not (query.has_identities and gallery.has_identities):
        raise DataError(
            f"{dataset.name} has query or gallery images without identities: nothing tells right from wrong",
            "Prepare it again with a pid for each of them",
        )


def is_of_these_images(card: ModelCard, dataset: Dataset) -> bool:
    """Whether the model was trained on the dataset's training images as they are now, as far as it knows.

    A model of another dataset, or of an older calr, does not know better.
    """
    train = dataset.train
    if card.images is None or card.dataset != dataset.name or card.images == train.fingerprint:
        return True
    cameras = (np.flatnonzero(train.camids == camid) for camid in np.unique(train.camids))
    return any(train.subset(members).fingerprint == card.images for members in cameras)  # stage 1's models


def warn_if_trained_on_others(path: Path, card: ModelCard, dataset: Dataset, reporter: Reporter) -> bool:
    """Warn if the model in ``path`` was trained on other images than ``dataset`` has now; whether it was."""
    others = not is_of_these_images(card, dataset)
    if others:
        reporter.warning(
            f"{path} was trained on other images than {dataset.name} has now: the dataset was prepared again "
            "since, and the model may have been trained on images that it is tested on here"
        )
    return others


def evaluate(
    settings: Settings,
    encoder: Encoder,
    dataset: Dataset,
    rerank: bool,
    reporter: Reporter,
    pixels: tuple[PixelSource, PixelSource] | None = None,
) -> dict[str, Any]:
    """Retrieval metrics of the encoder: mAP, mINP and Rank-1, -5, -10, in percent; the same on all ranks.

    Args:
        settings: Of extraction, re-ranking and memory.
        encoder: On its device.
        dataset: Its query and gallery are used.
        rerank: Whether to re-rank.
        reporter: Told what happens.
        pixels: Of query and gallery, where they are open already.

    Raises:
        DataError: No query or gallery, identities that are not known, no query with a match, or an
            image that cannot be read.
    """
    features = extract_test_set(settings, encoder, dataset, reporter, pixels)
    device = encoder.device
    return collectives.made_by_main(
        lambda: retrieval_figures(settings, *features, dataset, rerank, device, reporter)
    )


def extract_test_set(
    settings: Settings,
    encoder: Encoder,
    dataset: Dataset,
    reporter: Reporter,
    pixels: tuple[PixelSource, PixelSource] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Features of query (Q, D) and gallery (G, D), whole on rank 0; arguments and errors as of `evaluate`."""
    require_test_set(dataset)
    extract = build_extractor(settings, reporter)
    q_pixels, g_pixels = pixels or (
        build_pixels(settings, dataset.query, reporter),
        build_pixels(settings, dataset.gallery, reporter),
    )
    return extract(encoder, q_pixels, title="query"), extract(encoder, g_pixels, title="gallery")


def retrieval_figures(
    settings: Settings,
    q_features: FloatArray,
    g_features: FloatArray,
    dataset: Dataset,
    rerank: bool,
    device: torch.device,
    reporter: Reporter,
) -> dict[str, Any]:
    """The figures of `evaluate` from the features of query (Q, D) and gallery (G, D)."""
    query, gallery = dataset.query, dataset.gallery
    truth = (query.pids, gallery.pids, query.camids, gallery.camids)
    scratch = block_bytes(memory_limit(settings))
    shape, dim = (len(query), len(gallery)), q_features.shape[1]
    what = f"{'re-ranking' if rerank else 'ranking'} {shape[0]:,} queries in {shape[1]:,} gallery images"
    compared = (shape[0] + shape[1]) ** 2 + shape[0] * shape[1] if rerank else shape[0] * shape[1]
    tell_estimate(what, 2.0 * compared * dim, 3 * scratch, device, reporter)
    with reporter.progress("re-ranking" if rerank else "ranking", 0):
        if rerank:
            options = settings.evaluation.rerank
            blocks = rerank_blocks(
                q_features,
                g_features,
                options.k1,
                options.k2,
                options.lambda_value,
                device=device,
                block_bytes=scratch,
            )
            metrics = metrics_of_blocks(map(torch.from_numpy, blocks), shape, *truth)
        else:
            queries, others = (torch.from_numpy(rows).to(device) for rows in (q_features, g_features))
            metrics = retrieval_metrics(queries, others, *truth, block_bytes=scratch // 2)
    return {
        "dataset": dataset.name,
        "mAP": 100 * metrics.mAP,
        "mINP": 100 * metrics.mINP,
        **{f"Rank-{r}": 100 * metrics.rank(r) for r in (1, 5, 10)},
        "queries": metrics.num_queries,
        "gallery": len(gallery),
        "rerank": rerank,
    }
