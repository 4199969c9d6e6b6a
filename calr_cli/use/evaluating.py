"""Evaluation as a command runs it: one process per device, with a calibration if that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from calr_cli.config.schema import Settings
from calr_cli.distributed import collectives
from calr_cli.distributed.launch import launch
from calr_cli.events import Reporter
from calr_cli.method.build import build_encoder, ready
from calr_cli.method.evaluate import evaluate, extract_test_set, retrieval_figures
from calr_cli.method.processes import prepared
from calr_cli.training.checkpoint import load_encoder
from calr_cli.types import Dataset
from calr_cli.use.calibration import calibrate, calibrate_by_clusters
from calr_cli.use.finite import require_finite


def run_evaluation(
    settings: Settings,
    model: Path | None,
    dataset: Dataset,
    rerank: bool,
    devices: Sequence[torch.device],
    logs: Path,
    reporter: Reporter,
    with_calibration: bool = False,
) -> dict[str, Any]:
    """Retrieval metrics of a model file, or of an untrained network (None), on ``devices``; see `evaluate`.

    With calibration a dataset without identities is no error: there is a calibration by clusters alone then.

    Raises:
        CalrError: What `evaluate` raises, a GPU that is full, or a process that ended.
    """
    work = (settings, model, dataset, rerank, with_calibration)
    return launch(_evaluation, work, devices=devices, reporter=reporter, logs=logs)


def _evaluation(
    device: torch.device,
    reporter: Reporter,
    settings: Settings,
    model: Path | None,
    dataset: Dataset,
    rerank: bool,
    with_calibration: bool,
) -> dict[str, Any]:
    with prepared(settings, device):
        if model is None:
            encoder = build_encoder(settings, "inter", device)
            require_finite(encoder, Path(settings.model.pretrained))
        else:
            asked, data = settings.model, settings.data
            network = load_encoder(model, asked.arch, asked.pooling, data.height, data.width)
            require_finite(network, model)
            encoder = ready(settings, network, device)
        if with_calibration and not dataset.has_test_set:
            calibration = calibrate_by_clusters(settings, encoder, dataset, reporter)
            return {"dataset": dataset.name, "calibration": calibration.to_dict()}
        if not with_calibration:
            return evaluate(settings, encoder, dataset, rerank, reporter)
        features = extract_test_set(settings, encoder, dataset, reporter)

        def measure() -> dict[str, Any]:
            figures = retrieval_figures(settings, *features, dataset, rerank, device, reporter)
            return {**figures, "calibration": calibrate(*features, dataset).to_dict()}

        return collectives.made_by_main(measure)
