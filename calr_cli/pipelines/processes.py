"""Each stage as a command runs it: one process per device, in this process where there is one device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from calr_cli.config.schema import Settings
from calr_cli.distributed.launch import launch
from calr_cli.errors import MemoryLimitError
from calr_cli.events import Reporter
from calr_cli.pipelines.build import build_encoder, ready
from calr_cli.pipelines.calibration import calibrate_by_clusters
from calr_cli.pipelines.devices import make_deterministic
from calr_cli.pipelines.evaluate import evaluate
from calr_cli.pipelines.inter import train_inter
from calr_cli.pipelines.intra import train_intra
from calr_cli.pipelines.run_dir import RunFolder
from calr_cli.training.checkpoint import load_encoder
from calr_cli.types import Dataset, IntArray


def run_intra(
    settings: Settings, dataset: Dataset, run: RunFolder, devices: Sequence[torch.device], reporter: Reporter
) -> dict[str, Any]:
    """Stage 1 on ``devices``, each shown with a progress of its own if it works alone; see `train_intra`.

    Raises:
        CalrError: What `train_intra` raises, a GPU that is full, or a process that ended.
    """
    work, apart = (settings, dataset, run), settings.intra.network == "per-camera"
    return launch(_intra, work, devices=devices, reporter=reporter, logs=run.logs, everyone=apart)


def run_inter(
    settings: Settings,
    dataset: Dataset,
    local_labels: IntArray | None,
    run: RunFolder,
    devices: Sequence[torch.device],
    reporter: Reporter,
) -> dict[str, Any]:
    """Stage 2 on ``devices``; see `train_inter`.

    Raises:
        CalrError: What `train_inter` raises, a GPU that is full, or a process that ended.
    """
    work = (settings, dataset, local_labels, run)
    return launch(_inter, work, devices=devices, reporter=reporter, logs=run.logs)


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


def _intra(
    device: torch.device, reporter: Reporter, settings: Settings, dataset: Dataset, run: RunFolder
) -> dict[str, Any]:
    with _prepared(settings, device):
        return train_intra(settings, dataset, run, device, reporter)


def _inter(
    device: torch.device,
    reporter: Reporter,
    settings: Settings,
    dataset: Dataset,
    local_labels: IntArray | None,
    run: RunFolder,
) -> dict[str, Any]:
    with _prepared(settings, device):
        return train_inter(settings, dataset, local_labels, run, device, reporter)


def _evaluation(
    device: torch.device,
    reporter: Reporter,
    settings: Settings,
    model: Path | None,
    dataset: Dataset,
    rerank: bool,
    with_calibration: bool,
) -> dict[str, Any]:
    with _prepared(settings, device):
        if model is None:
            encoder = build_encoder(settings, "inter", device)
        else:
            network = load_encoder(model, settings.model.arch, settings.model.pooling)
            encoder = ready(settings, network, device)
        if with_calibration and not (dataset.query.has_identities and dataset.gallery.has_identities):
            calibration = calibrate_by_clusters(settings, encoder, dataset, reporter)
            return {"dataset": dataset.name, "calibration": calibration.to_dict()}
        return evaluate(settings, encoder, dataset, rerank, reporter, with_calibration=with_calibration)


@contextmanager
def _prepared(settings: Settings, device: torch.device) -> Iterator[None]:
    """What holds for every process of every stage."""
    torch.backends.cudnn.benchmark = True  # sizes stay the same: the fastest algorithm is worth looking for
    if settings.deterministic:
        make_deterministic()
    try:
        yield
    except torch.cuda.OutOfMemoryError:  # training tells its own; this is extraction, labels or ranking
        raise MemoryLimitError(
            f"the memory of {device} is full",
            f"Lower evaluation.batch_size ({settings.evaluation.batch_size} now), or memory_limit_gb",
        ) from None
