"""The demonstration: untrained network, global clustering alone, and CALR, on one dataset in one go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from calr_cli.config.schema import Settings
from calr_cli.events import Reporter
from calr_cli.method.both import Pair, train_both
from calr_cli.method.build import build_encoder, check_start_model, ready
from calr_cli.method.clusters import build_clustering
from calr_cli.method.evaluate import evaluate
from calr_cli.prepare.prepared import load_dataset
from calr_cli.runs.find import create_run
from calr_cli.runs.folder import RunFolder
from calr_cli.training.checkpoint import load_model


def run_demo(
    settings: Settings, device: torch.device, output: Path | None, reporter: Reporter
) -> dict[str, Any]:
    """Train and evaluate everything that the demonstration's table shows.

    Args:
        settings: Of the synthetic dataset.
        device: Where the networks work.
        output: Folder for the three runs; None puts them under ``runs``.
        reporter: Hears the progress.

    Returns:
        ``rows``: mAP and Rank-1, -5, -10 in percent per model; ``runs``: the folders by name.

    Raises:
        CheckpointError: A run's folder exists already or cannot be made.
        ConfigError: Stage 2 is to start from a network that stage 1 does not give, or cannot cluster here.
        CalrError: Training cannot go on, see `train_both`.
    """
    check_start_model(settings, None)
    build_clustering(settings, reporter)
    dataset = load_dataset(settings.data.dataset, None, reporter)

    def new_run(stage: str, name: str, settings: Settings) -> RunFolder:
        return create_run(settings, stage, [device], output / name if output else None)

    def row(model: str, run: RunFolder | None) -> dict[str, Any]:
        encoder = (
            ready(settings, load_model(run.model)[0], device)
            if run
            else build_encoder(settings, "inter", device)
        )
        return {"model": model, **evaluate(settings, encoder, dataset, False, reporter)}

    reporter.stage("untrained network")
    rows = [row("untrained", None)]

    reporter.stage("global clustering alone, without anything that knows cameras")
    baseline = Pair(new_run("inter", "baseline", without_camera_awareness(settings)))
    train_both(baseline, dataset, [device], reporter)
    rows.append(row("global clustering", baseline.inter))

    reporter.stage("CALR: local labels, then global labels refined by them")
    intra, inter = new_run("intra", "intra", settings), new_run("inter", "inter", settings)
    train_both(Pair(inter, intra), dataset, [device], reporter)
    rows.append(row("CALR", inter))
    return {
        "rows": rows,
        "runs": {
            "baseline": str(baseline.inter.path),
            "stage 1": str(intra.path),
            "stage 2": str(inter.path),
        },
    }


def without_camera_awareness(settings: Settings) -> Settings:
    """The same settings with stage 2 reduced to its baseline: global clusters as they come.

    It has no stage 1, which works camera by camera, and so begins with the pretrained weights.
    """
    inter = settings.inter
    plain = inter.model_copy(
        update={
            "start": "pretrained",
            "refinement": inter.refinement.model_copy(update={"enabled": False}),
            "clustering": inter.clustering.model_copy(update={"standardise": False}),
            "camera": inter.camera.model_copy(update={"enabled": False}),
            "weights": inter.weights.model_copy(update={"mode": "off"}),
            "proxies": inter.proxies.model_copy(update={"weight": 0.0}),
        }
    )
    return settings.model_copy(update={"inter": plain})
