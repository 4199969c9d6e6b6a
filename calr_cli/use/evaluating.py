"""Evaluation as a command runs it: one process per device, with a calibration if that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calr_cli.config.schema import Settings
from calr_cli.distributed import collectives
from calr_cli.distributed.launch import launch
from calr_cli.events import Reporter
from calr_cli.method.build import build_encoder, ready
from calr_cli.method.evaluate import extract_test_set, retrieval_figures
from calr_cli.method.processes import prepared
from calr_cli.training.checkpoint import load_encoder
from calr_cli.types import Dataset
from calr_cli.use.by_camera import standardised
from calr_cli.use.calibration import calibrate, calibrate_by_clusters
from calr_cli.use.camera_following import camera_following
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
    per_camera: bool = False,
) -> dict[str, Any]:
    """Retrieval metrics of a model file, or of an untrained network (None), on ``devices``; see `evaluate`.

    With calibration a dataset without identities is no error: there is a calibration by clusters alone then.
    ``per_camera`` standardises the features of each camera of query and gallery. Under ``cameras`` the result
    says how far neighbours and clusters follow cameras; None: there is one camera.

    Raises:
        CalrError: What `evaluate` raises, a GPU that is full, or a process that ended.
    """
    work = (settings, model, dataset, rerank, with_calibration, per_camera)
    return launch(_evaluation, work, devices=devices, reporter=reporter, logs=logs)


def _evaluation(
    device: torch.device,
    reporter: Reporter,
    settings: Settings,
    model: Path | None,
    dataset: Dataset,
    rerank: bool,
    with_calibration: bool,
    per_camera: bool,
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
        features = extract_test_set(settings, encoder, dataset, reporter)

        def measure() -> dict[str, Any]:
            camids = np.concatenate([dataset.query.camids, dataset.gallery.camids])
            rows = np.concatenate(features)
            if per_camera:
                rows = standardised(rows, [str(camid) for camid in camids], reporter)
            q_features, g_features = np.split(rows, [len(dataset.query)])
            figures = retrieval_figures(settings, q_features, g_features, dataset, rerank, device, reporter)
            bias = camera_following(settings, rows, camids, device)
            figures |= {"per_camera": per_camera, "cameras": None if bias is None else asdict(bias)}
            if with_calibration:
                figures["calibration"] = calibrate(q_features, g_features, dataset).to_dict()
            return figures

        return collectives.made_by_main(measure)
