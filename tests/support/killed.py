"""Trainings in processes of their own, to be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

from calr_cli.data.local_labels import read_local_labels
from calr_cli.data.prepared import load_dataset
from calr_cli.events import SilentReporter
from calr_cli.pipelines.inter import train_inter
from calr_cli.pipelines.intra import train_intra
from calr_cli.pipelines.run_dir import RunFolder
from calr_cli.training import epoch

CPU = torch.device("cpu")

# Torch is imported once, in a process that never computes: its children start at once, and safely.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


def train(
    stage: str, folder: Path, home: Path, save_seconds: float, how: str = "SIGKILL", after: float = 0
) -> int:
    """Begin or continue the run in ``folder``, saving within epochs every ``save_seconds``; its exit code.

    Args:
        stage: ``intra`` or ``inter``.
        folder: Of the run; ``cpu_seconds`` in it says what a run to the end took.
        home: State folder.
        save_seconds: Between two saves within an epoch.
        how: The signal that ends it: SIGINT, or SIGKILL for one that cannot be heard.
        after: CPU seconds until then, which do not depend on how busy the machine is; 0: never.
    """
    process: ForkServerProcess = _CONTEXT.Process(
        target=_train, args=(stage, folder, str(home), save_seconds, how, after)
    )
    process.start()
    process.join(200)
    assert process.exitcode is not None
    return process.exitcode


def _train(stage: str, folder: Path, home: str, save_seconds: float, how: str, after: float) -> None:
    began = time.process_time()
    if how == "SIGINT":
        signal.signal(signal.SIGPROF, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    else:  # what it does to a process by itself is to end it, unheard
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, after)
    os.environ["CALR_HOME"] = home
    torch.set_num_threads(1)
    epoch.SAVE_SECONDS = save_seconds
    run, dataset = RunFolder(folder), load_dataset("market1501")
    if stage == "intra":
        train_intra(run.settings, dataset, run, CPU, SilentReporter())
    else:
        labels = read_local_labels(run.local_labels, dataset.train)
        train_inter(run.settings, dataset, labels, run, CPU, SilentReporter())
    signal.setitimer(signal.ITIMER_PROF, 0)
    (folder / "cpu_seconds").write_text(str(time.process_time() - began))
