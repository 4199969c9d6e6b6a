"""The demonstration: untrained network, global clustering alone, and CALR, on one dataset in one go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from calr_cli.config.schema import Settings
from calr_cli.data.local_labels import read_local_labels, write_local_labels
from calr_cli.events import Reporter
from calr_cli.method.build import build_encoder, ready
from calr_cli.method.evaluate import evaluate
from calr_cli.method.inter import train_inter
from calr_cli.method.intra import train_intra
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
        reporter: Told what happens.

    Returns:
        ``rows``: mAP and Rank-1, -5, -10 in percent per model; ``runs``: the folders by name.

    Raises:
        CheckpointError: A run's folder exists already or cannot be made.
        TrainingError: Training cannot go on, see `train_inter`.
    """
    dataset = load_dataset(settings.data.dataset, None, reporter)

    def new_run(stage: str, name: str, told: Settings) -> RunFolder:
        return create_run(told, stage, [device], output / name if output else None)

    def row(model: str, folder: RunFolder | None) -> dict[str, Any]:
        encoder = (
            ready(settings, load_model(folder.model)[0], device)
            if folder
            else build_encoder(settings, "inter", device)
        )
        return {"model": model, **evaluate(settings, encoder, dataset, False, reporter)}

    reporter.stage("untrained network")
    rows = [row("untrained", None)]

    reporter.stage("global clustering alone: no refinement, no camera head, no weights")
    alone = without_camera_awareness(settings)
    baseline = new_run("inter", "baseline", alone)
    train_inter(alone, dataset, None, baseline, device, reporter)
    rows.append(row("global clustering", baseline))

    reporter.stage("CALR, stage 1: local labels")
    intra = new_run("intra", "intra", settings)
    train_intra(settings, dataset, intra, device, reporter)

    reporter.stage("CALR, stage 2: refined global labels")
    inter = new_run("inter", "inter", settings)
    local_labels = read_local_labels(intra.local_labels, dataset.train)
    write_local_labels(inter.local_labels, dataset.train, local_labels)
    train_inter(settings, dataset, local_labels, inter, device, reporter)
    rows.append(row("CALR", inter))
    return {
        "rows": rows,
        "runs": {"baseline": str(baseline.path), "stage 1": str(intra.path), "stage 2": str(inter.path)},
    }


def without_camera_awareness(settings: Settings) -> Settings:
    """The same settings with stage 2 reduced to its baseline: global clusters as they come."""
    inter = settings.inter
    plain = inter.model_copy(
        update={
            "refinement": inter.refinement.model_copy(update={"enabled": False}),
            "camera": inter.camera.model_copy(update={"enabled": False}),
            "weights": inter.weights.model_copy(update={"mode": "off"}),
        }
    )
    return settings.model_copy(update={"inter": plain})
