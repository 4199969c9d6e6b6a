"""Each stage as a command runs it: one process per device, in this process where there is one device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from calr_cli.allocation import named_when_full
from calr_cli.config.schema import Settings
from calr_cli.distributed.devices import make_deterministic
from calr_cli.distributed.launch import launch
from calr_cli.events import Reporter
from calr_cli.method.inter import train_inter
from calr_cli.method.intra import train_intra
from calr_cli.runs.folder import RunFolder
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


def _intra(
    device: torch.device, reporter: Reporter, settings: Settings, dataset: Dataset, run: RunFolder
) -> dict[str, Any]:
    with prepared(settings, device):
        return train_intra(settings, dataset, run, device, reporter)


def _inter(
    device: torch.device,
    reporter: Reporter,
    settings: Settings,
    dataset: Dataset,
    local_labels: IntArray | None,
    run: RunFolder,
) -> dict[str, Any]:
    with prepared(settings, device):
        return train_inter(settings, dataset, local_labels, run, device, reporter)


@contextmanager
def prepared(settings: Settings, device: torch.device) -> Iterator[None]:
    """What holds for every process of every stage."""
    torch.backends.cudnn.benchmark = True  # sizes stay the same: the fastest algorithm is worth looking for
    if settings.deterministic:
        make_deterministic()
    remedy = f"Lower evaluation.batch_size ({settings.evaluation.batch_size} now), or memory_limit_gb"
    with named_when_full(device, remedy):  # training tells its own; this is extraction, labels or ranking
        yield
