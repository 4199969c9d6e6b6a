"""How many threads compute: affinity, quotas, the flag and the variable."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from calr_cli import threads
from calr_cli.errors import ConfigError
from calr_cli.threads import available_cores, busy, limit_threads, spin_briefly


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On a machine with eight cores, without a quota; torch gets its threads back."""
    monkeypatch.setenv("OMP_NUM_THREADS", "to be put back")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(threads, "cpu_quota", lambda: None)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("quota", "cores"), [(None, 8), (0.5, 1), (1.0, 1), (1.5, 2), (2.0, 2), (8.0, 8), (64.0, 8)]
)
def test_the_smaller_of_affinity_and_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    assert available_cores() == cores


def test_where_a_system_binds_nothing_all_cores_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1


def test_without_flag_and_quota_the_libraries_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    limit_threads(None)
    assert ("OMP_NUM_THREADS" in os.environ, torch.get_num_threads()) == (False, before)


def test_a_quota_limits_all_that_is_loaded_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cpu_quota", lambda: 2.5)
    limit_threads(None)
    assert (os.environ["OMP_NUM_THREADS"], torch.get_num_threads()) == ("3", 3)


def test_the_flag_wins_over_the_variable_which_wins_over_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cpu_quota", lambda: 2.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    before = torch.get_num_threads()
    limit_threads(None)
    assert (os.environ["OMP_NUM_THREADS"], torch.get_num_threads()) == ("5", before)
    limit_threads(4)
    assert (os.environ["OMP_NUM_THREADS"], torch.get_num_threads()) == ("4", 4)


@pytest.mark.parametrize("count", [0, -2])
def test_a_flag_without_a_thread(count: int) -> None:
    with pytest.raises(ConfigError, match=rf"^--threads {count} must be from 1$"):
        limit_threads(count)


def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (4.9, 9.0, 9.0))
    assert busy() is None
    monkeypatch.setattr(os, "getloadavg", lambda: (7.4, 0.0, 0.0))
    assert busy() == "this machine is busy: 7 programs want its 2 core(s); everything takes longer"
    monkeypatch.delattr(os, "getloadavg")
    assert busy() is None


def test_spinning_is_left_to_a_user_who_decides_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    spin_briefly()
    assert "GOMP_SPINCOUNT" not in os.environ
