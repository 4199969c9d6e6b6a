"""Processes on one machine share its threads; no process is started here."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from calr_cli.distributed.launch import _fair_threads
from calr_cli.distributed.worker import Job


@pytest.mark.parametrize("given", [None, "6"])
@pytest.mark.parametrize(
    ("devices", "apart", "each"),
    [
        ("cpu cpu", False, "3"),
        ("cpu cpu cpu cpu", False, "1"),
        ("cuda cuda", True, "3"),
        ("cuda cuda", False, None),
    ],
)
def test_processes_that_compute_on_the_cpu_together_divide_its_threads(
    monkeypatch: pytest.MonkeyPatch, devices: str, apart: bool, each: str | None, given: str | None
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "to be put back")
    monkeypatch.delenv("OMP_NUM_THREADS")
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    places = tuple(map(torch.device, devices.split()))
    with _fair_threads(Job(print, (), places, (), Path(), apart, timedelta(1))):
        assert os.environ.get("OMP_NUM_THREADS") == (given if each is None else each)
    assert os.environ.get("OMP_NUM_THREADS") == given
