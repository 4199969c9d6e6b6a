"""Trainings in processes of their own, to be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch

from calr_cli.data.local_labels import read_local_labels
from calr_cli.distributed import collectives
from calr_cli.distributed.launch import launch
from calr_cli.events import Reporter, SilentReporter
from calr_cli.method.inter import train_inter
from calr_cli.method.intra import train_intra
from calr_cli.prepare.prepared import load_dataset
from calr_cli.runs.folder import RunFolder
from calr_cli.training import epoch
from calr_cli.types import Dataset
from tests.support.narrow import use_narrow

CPU = torch.device("cpu")

# Torch is imported once, in a process that never computes: its children start at once, and safely.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Plan:
    """What is trained, and how it ends.

    Attributes:
        stage: ``intra`` or ``inter``.
        processes: That train together.
        save_seconds: Between two saves within an epoch.
        how: The signal: SIGINT to the process that a user would send it to, SIGKILL to the last of those that
            train.
        after: CPU seconds of the last of them until then, which do not depend on how busy the machine is;
            0: never.
    """

    stage: str
    processes: int
    save_seconds: float
    how: str = "SIGKILL"
    after: float = 0


def train(plan: Plan, folder: Path, home: Path) -> int:
    """Begin or continue the run in ``folder`` in a process of its own; the exit code.

    ``cpu_seconds`` in the folder says what the last process of a run to the end took.
    """
    process: ForkServerProcess = _CONTEXT.Process(target=_start, args=(plan, folder, str(home)))
    process.start()
    process.join(200)
    assert process.exitcode is not None
    return process.exitcode


def _start(plan: Plan, folder: Path, home: str) -> None:
    os.environ["CALR_HOME"] = home
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    run, dataset = RunFolder(folder), load_dataset("market1501")
    launch(
        _train,
        (plan, run, dataset, os.getpid()),
        devices=[CPU] * plan.processes,
        reporter=SilentReporter(),
        logs=run.logs,
    )


def _train(
    device: torch.device, reporter: Reporter, plan: Plan, run: RunFolder, dataset: Dataset, parent: int
) -> None:
    use_narrow(pytest.MonkeyPatch())
    began = time.process_time()
    last = collectives.rank() == plan.processes - 1
    if last and plan.after:
        if plan.how == "SIGINT":
            signal.signal(signal.SIGPROF, lambda *_: os.kill(parent, signal.SIGINT))
        else:  # what it does to a process by itself is to end it, unheard
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, plan.after)
    epoch.SAVE_SECONDS = plan.save_seconds
    if plan.stage == "intra":
        train_intra(run.settings, dataset, run, device, reporter)
    else:
        labels = read_local_labels(run.local_labels, dataset.train)
        train_inter(run.settings, dataset, labels, run, device, reporter)
    signal.setitimer(signal.ITIMER_PROF, 0)
    if last:
        (run.path / "cpu_seconds").write_text(str(time.process_time() - began))
