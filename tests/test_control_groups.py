"""Limits of containers and batch systems, on made-up trees of both versions of control groups."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from calr_cli import control_groups
from calr_cli.allocation import available_memory
from calr_cli.control_groups import cpu_quota, memory_left


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(control_groups, "_MOUNT", tmp_path / "cgroup")
    monkeypatch.setattr(control_groups, "_MEMBERSHIP", tmp_path / "membership")
    return tmp_path


def write(tree: Path, membership: str, files: dict[str, str]) -> None:
    (tree / "membership").write_text(membership, encoding="utf-8")
    for name, content in files.items():
        file = tree / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")


def test_without_control_groups_there_is_no_limit(tree: Path) -> None:
    assert cpu_quota() is None
    assert memory_left() is None
    write(tree, "0::/\n", {"cpu.max": "max 100000\n", "memory.max": "max\n", "memory.current": "5\n"})
    assert cpu_quota() is None
    assert memory_left() is None
    write(tree, "", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"})
    assert cpu_quota() is None


def test_version_2_in_a_container(tree: Path) -> None:
    files = {"cpu.max": "150000 100000\n", "memory.max": "1000\n", "memory.current": "400\n"}
    write(tree, "0::/\n", files)
    assert (cpu_quota(), memory_left()) == (1.5, 600)


def test_the_tightest_of_nested_groups_holds(tree: Path) -> None:
    write(
        tree,
        "0::/batch.slice/job/step\n",
        {
            "batch.slice/cpu.max": "800000 100000\n",
            "batch.slice/memory.max": "900\n",
            "batch.slice/memory.current": "800\n",
            "batch.slice/job/cpu.max": "200000 100000\n",
            "batch.slice/job/memory.max": "max\n",
            "batch.slice/job/memory.current": "700\n",
            "batch.slice/job/step/cpu.max": "max 100000\n",
            "batch.slice/other/cpu.max": "100000 100000\n",
        },
    )
    assert (cpu_quota(), memory_left()) == (2.0, 100)


def test_version_1_has_a_tree_for_each_controller(tree: Path) -> None:
    write(
        tree,
        "11:memory:/lxc/box\n4:cpu,cpuacct:/lxc\n1:name=systemd:/init\n0::/unused\n",
        {
            "cpu/lxc/cpu.cfs_quota_us": "50000\n",
            "cpu/lxc/cpu.cfs_period_us": "100000\n",
            "memory/lxc/box/memory.limit_in_bytes": "3000\n",
            "memory/lxc/box/memory.usage_in_bytes": "3500\n",
        },
    )
    assert (cpu_quota(), memory_left()) == (0.5, 0)


def test_a_container_may_see_a_path_that_is_not_mounted(tree: Path) -> None:
    write(
        tree,
        "4:cpu,cpuacct:/docker/0123abcd\n3:memory:/docker/0123abcd\n",
        {
            "cpu/cpu.cfs_quota_us": "300000\n",
            "cpu/cpu.cfs_period_us": "100000\n",
            "memory/memory.limit_in_bytes": "70\n",
            "memory/memory.usage_in_bytes": "20\n",
        },
    )
    assert (cpu_quota(), memory_left()) == (3.0, 50)


def test_free_memory_is_what_machine_and_group_both_have(tree: Path) -> None:
    write(tree, "0::/job\n", {"job/memory.max": "1000000\n", "job/memory.current": "1000\n"})
    assert available_memory() == 999_000
    write(tree, "0::/job\n", {"job/memory.max": f"{2**62}\n"})
    assert 0 < available_memory() <= psutil.virtual_memory().total
