"""What a process that a launcher has started sees to before it works."""

from __future__ import annotations

import pytest
import torch

from calr_cli.distributed import collectives
from calr_cli.distributed import launch as launch_module
from calr_cli.errors import ConfigError
from calr_cli.threads import available_cores


def test_two_processes_on_one_gpu_are_refused_before_nccl_does(monkeypatch: pytest.MonkeyPatch) -> None:
    everyones = [("node1", "GPU-a"), ("node1", "GPU-b"), ("node2", "GPU-a"), ("node1", "GPU-b")]
    monkeypatch.setattr(launch_module, "gpu_identity", lambda device: "GPU-b")
    monkeypatch.setattr(collectives, "gather", lambda mine: everyones)
    with pytest.raises(ConfigError) as caught:
        launch_module._require_gpus_of_their_own(torch.device("cuda", 0))
    assert caught.value.lines() == [
        "processes 1 and 3 have the same GPU of node1. "
        "Start one process for each GPU, and show each all of them or only its own"
    ]
    everyones.pop()
    launch_module._require_gpus_of_their_own(torch.device("cuda", 0))
    monkeypatch.setattr(collectives, "gather", lambda mine: [mine, mine])
    launch_module._require_gpus_of_their_own(torch.device("cpu"))


@pytest.mark.parametrize(
    ("threads", "started_by", "device", "rank", "undone"),
    [
        ("1", "TORCHELASTIC_RUN_ID", "cuda", 0, True),
        ("1", "TORCHELASTIC_RUN_ID", "cuda", 1, False),
        ("1", "TORCHELASTIC_RUN_ID", "cpu", 0, False),  # the cores are shared
        ("2", "TORCHELASTIC_RUN_ID", "cuda", 0, False),  # the user's own choice
        ("1", "SLURM_JOB_ID", "cuda", 0, False),
    ],
)
def test_labels_are_made_on_more_than_the_one_thread_of_torchrun(
    monkeypatch: pytest.MonkeyPatch, threads: str, started_by: str, device: str, rank: int, undone: bool
) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setenv(started_by, "1")
    monkeypatch.setattr(collectives, "rank", lambda: rank)
    counts: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    launch_module._undo_one_thread(torch.device(device))
    assert counts == ([available_cores()] if undone else [])
