"""The demonstration: untrained network, global clustering alone, CALR, and the recipe plus, in one go."""

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
from calr_cli.models.encoder import Encoder
from calr_cli.prepare.prepared import load_dataset
from calr_cli.runs.find import create_run
from calr_cli.runs.folder import RunFolder
from calr_cli.training.checkpoint import load_model


def run_demo(
    settings: Settings, plus: Settings, device: torch.device, output: Path | None, reporter: Reporter
) -> dict[str, Any]:
    """Train and evaluate everything that the demonstration's table shows.

    Each method trains all that it uses: CALR and the recipe plus differ in stage 1 already.

    Args:
        settings: Of the synthetic dataset.
        plus: The same with the recipe plus.
        device: Where the networks work.
        output: Folder for the runs, ``METHOD/STAGE``; None puts them under ``runs``.
        reporter: Hears the progress.

    Returns:
        ``rows``: mAP and Rank-1, -5, -10 in percent per model; ``runs``: the folder of stage 2 per trained
        model.

    Raises:
        CheckpointError: A run's folder exists already or cannot be made.
        ConfigError: Stage 2 is to start from a network that stage 1 does not give, or cannot cluster here.
        CalrError: Training cannot go on, see `train_both`.
    """
    methods = {
        "global clustering": ("baseline", without_camera_awareness(settings)),
        "CALR": ("calr", settings),
        "recipe plus": ("plus", plus),
    }
    for _, own in methods.values():
        check_start_model(own, None)
        build_clustering(own, reporter)
    dataset = load_dataset(settings.data.dataset, None, reporter)

    def new_run(own: Settings, stage: str, folder: str) -> RunFolder:
        return create_run(own, stage, [device], output / folder / stage if output else None)

    def row(model: str, encoder: Encoder) -> dict[str, Any]:
        return {"model": model, **evaluate(settings, encoder, dataset, False, reporter)}

    reporter.stage("untrained network")
    rows, runs = [row("untrained", build_encoder(settings, "inter", device))], {}
    for model, (folder, own) in methods.items():
        reporter.stage(model)
        intra = new_run(own, "intra", folder) if own.inter.uses_stage_1 else None
        inter = new_run(own, "inter", folder)
        train_both(Pair(inter, intra), dataset, [device], reporter)
        rows.append(row(model, ready(own, load_model(inter.model)[0], device)))
        runs[model] = str(inter.path)
    return {"rows": rows, "runs": runs}


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
