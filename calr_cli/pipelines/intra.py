"""Stage 1: local labels, one network and one clustering per camera."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from scipy import sparse

from calr_cli.clustering.agglomerative import DENSE_BOUND, agglomerative_labels, silhouette
from calr_cli.clustering.centroids import cluster_centroids
from calr_cli.clustering.quality import label_quality
from calr_cli.config.schema import Settings
from calr_cli.data.local_labels import read_local_labels, write_local_labels
from calr_cli.data.samplers import cluster_batches
from calr_cli.distances.jaccard import jaccard_distance, jaccard_similarity
from calr_cli.distances.knn import choose_backend
from calr_cli.events import Reporter, SilentReporter
from calr_cli.pipelines.build import (
    build_augmentation,
    build_encoder,
    build_extractor,
    build_memory,
    model_card,
    optimiser_options,
    search_neighbours,
)
from calr_cli.pipelines.estimates import memory_limit
from calr_cli.pipelines.run_dir import RunFolder
from calr_cli.training.checkpoint import load_state, save_model, save_state
from calr_cli.training.epoch import train_epoch
from calr_cli.training.optim import build_optimiser
from calr_cli.training.reproducibility import keyed_rng, seed_torch
from calr_cli.types import Dataset, FloatArray, ImageSet, IntArray


def train_intra(
    settings: Settings, dataset: Dataset, run: RunFolder, device: torch.device, reporter: Reporter
) -> dict[str, Any]:
    """Cluster and train within each camera; write one local label per training image.

    An interrupted run goes on: finished cameras are kept, the camera at work continues after its last
    whole epoch.

    Returns:
        Summary: clusters and, where identities are known, their quality per camera and overall.

    Raises:
        TrainingError: The loss is not a number.
        DataError: An image that cannot be read.
        OSError: The run folder cannot be written.
    """
    reporter.note(f"neighbour search: {choose_backend(settings.search.backend, device)} on {device}")
    labels = np.empty(len(dataset.train), np.int64)
    cameras = np.unique(dataset.train.camids)
    for number, camid in enumerate(cameras, start=1):
        members = np.flatnonzero(dataset.train.camids == camid)
        images = dataset.train.subset(members)
        folder = run.path / f"cam{camid}"
        finished = folder / "local_labels.csv"
        if not finished.exists():
            reporter.stage(f"camera {camid} ({number} of {len(cameras)}): {len(images)} images")
            write_local_labels(
                finished, images, _train_camera(settings, dataset, images, run, folder, device, reporter)
            )
            (folder / "checkpoint.pth").unlink(missing_ok=True)
        labels[members] = read_local_labels(finished, images)
    write_local_labels(run.local_labels, dataset.train, labels)
    labels = read_local_labels(run.local_labels, dataset.train)  # unique over cameras
    summary: dict[str, Any] = {
        "dataset": dataset.name,
        "images": len(labels),
        "cameras": len(cameras),
        "clusters": len(np.unique(labels)),
        "local_labels": str(run.local_labels),
    }
    if dataset.train.has_identities:
        quality = label_quality(labels, dataset.train.pids, dataset.train.camids)
        summary["quality"] = asdict(quality)
    return summary


def _train_camera(
    settings: Settings,
    dataset: Dataset,
    images: ImageSet,
    run: RunFolder,
    folder: Path,
    device: torch.device,
    reporter: Reporter,
) -> IntArray:
    """The camera's labels with the best silhouette over the epochs."""
    intra, camid = settings.intra, int(images.camids[0])
    num_clusters = _num_clusters(intra.clustering.num_clusters, len(images), reporter)
    if num_clusters < 2:
        reporter.note(f"too few images to train on: camera {camid} becomes one local cluster")
        return np.zeros(len(images), np.int64)
    extract, augmentation = build_extractor(settings, reporter), build_augmentation(settings)
    encoder = build_encoder(settings, "intra", device)
    optimiser, schedule = build_optimiser(encoder.parameters(), **optimiser_options(intra.optimiser))
    start, best, best_labels = 0, -np.inf, np.zeros(len(images), np.int64)
    state_file = folder / "checkpoint.pth"
    if state_file.exists():
        state = load_state(state_file)
        encoder.load_state_dict(state["encoder"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        start, best, best_labels = state["epoch"], state["best"], state["best_labels"].numpy()
    run.keep_metrics([r for r in run.read_metrics() if r["camera"] != camid or r["epoch"] < start])

    for epoch in range(start, intra.epochs):
        began = perf_counter()
        features: FloatArray = extract(encoder, images)
        extracted = perf_counter()
        with reporter.progress(f"camera {camid}: clustering", 0):
            told = reporter if epoch == start else SilentReporter()  # what holds for every epoch, once
            distances = _distances(settings, features, device, told)
            labels = agglomerative_labels(distances, num_clusters)
            score = silhouette(distances, labels)
        if score >= best:  # of equally good epochs the later one: its features saw more training
            best, best_labels = score, labels
            save_model(folder / "model.pth", encoder, model_card(settings, dataset, "intra", epoch))
        clustered = perf_counter()
        memory = build_memory(intra.memory, cluster_centroids(features, labels), device)
        batches = cluster_batches(
            labels,
            images.camids,
            batch_size=intra.batch_size,
            num_instances=intra.num_instances,
            iterations=intra.iters,
            rng=keyed_rng(settings.seed, "intra", camid, epoch, "batches"),
        )
        seed_torch(settings.seed, "intra", camid, epoch, "dropout")
        losses = train_epoch(
            encoder,
            memory,
            optimiser,
            images,
            labels,
            batches,
            augmentation=augmentation,
            rng=keyed_rng(settings.seed, "intra", camid, epoch, "augmentation"),
            height=settings.data.height,
            width=settings.data.width,
            workers=settings.data.workers,
            reporter=reporter,
            title=f"camera {camid} epoch {epoch + 1}/{intra.epochs}",
            update_mode=intra.memory.mode,
        )
        schedule.step()
        row: dict[str, Any] = {
            "camera": camid,
            "epoch": epoch,
            "images": len(images),
            "clusters": num_clusters,
            "batch": batches.shape[1],
            "silhouette": score,
            "loss": losses.cluster,
            "seconds": {
                "extract": extracted - began,
                "cluster": clustered - extracted,
                "train": perf_counter() - clustered,
            },
        }
        if images.has_identities:
            row["quality"] = asdict(label_quality(labels, images.pids))
        save_state(
            state_file,
            {
                "epoch": epoch + 1,
                "best": best,
                "best_labels": torch.from_numpy(best_labels),
                "encoder": encoder.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
            },
        )
        run.append_metrics(row)
        reporter.metric(row)
    return best_labels


def _distances(
    settings: Settings, features: FloatArray, device: torch.device, reporter: Reporter
) -> FloatArray | sparse.csr_array:
    """Jaccard distances of a camera: a matrix while that is small, else similarities where there are any."""
    k1, k2 = settings.intra.clustering.k1, settings.intra.clustering.k2
    found = search_neighbours(settings, features, max(k1, k2), device, reporter)
    limit = memory_limit(settings)
    if len(features) <= DENSE_BOUND:
        return jaccard_distance(features, k1, k2, neighbours=found, memory_limit=limit)
    return jaccard_similarity(features, k1, k2, neighbours=found, memory_limit=limit, reporter=reporter)


def _num_clusters(asked: int | None, num_images: int, reporter: Reporter) -> int:
    """K_c: a fifth of the camera's images, or the number asked for, but below the number of images."""
    wanted = num_images // 5 if asked is None else asked
    num_clusters = min(wanted, num_images - 1)
    if num_clusters > num_images // 2:
        reporter.warning(
            f"{num_clusters} clusters for {num_images} images leave most of them alone: "
            "lower intra.clustering.num_clusters"
        )
    return num_clusters
