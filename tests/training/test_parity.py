"""The number of processes changes nothing that is learnt: no weight, no memory, no feature."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.parity import Scenario, trained

SCENARIOS = {
    "four groups": Scenario(),
    "a smaller last group": Scenario(batch_size=22, weighted=True, aligned=True),
    "fewer groups than processes": Scenario(batch_size=13, weighted=True, aligned=True),
    "one group over all": Scenario(batch_size=22, group_size=0, weighted=True, aligned=True),
    "a vision transformer": Scenario(batch_size=22, weighted=True, aligned=True, vit=True),
    "proxies, groups of rows and an average": Scenario(batch_size=13, weighted=True, plus=True),
}
SINGLE_PRECISION = ("losses", "features")  # of the losses that are shown, and of features

Results = dict[str, dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def on_one(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run(1, tmp_path_factory.mktemp("logs"))


def run(processes: int, logs: Path) -> Results:
    return dict(zip(SCENARIOS, trained(processes, list(SCENARIOS.values()), logs), strict=True))


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], *left_out: str) -> float:
    assert a.keys() == b.keys()
    differences = [
        float((a[name].double() - b[name].double()).abs().max()) for name in a if name not in left_out
    ]
    assert len(differences) > 100
    return max(differences)


@pytest.mark.distributed
@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes_learns_the_same(on_one: Results, processes: int, tmp_path: Path) -> None:
    on_several = run(processes, tmp_path)
    for name, result in on_several.items():
        assert largest_difference(on_one[name], result, *SINGLE_PRECISION) < 1e-9, name
        for single in SINGLE_PRECISION:
            torch.testing.assert_close(on_one[name][single], result[single], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.distributed)])
def test_a_compiled_network_learns_the_same(on_one: Results, processes: int, tmp_path: Path) -> None:
    """Groups of two sizes, statistics that follow the first group only, and a camera classifier behind it."""
    name = "a smaller last group"
    torch.compiler.reset()
    (compiled,) = trained(processes, [replace(SCENARIOS[name], compiled=True)], tmp_path)
    assert largest_difference(on_one[name], compiled, *SINGLE_PRECISION) < 1e-10


def test_other_groups_learn_something_else(tmp_path: Path, on_one: Results) -> None:
    """The control: if groups did not matter, the test above would prove nothing."""
    for other in trained(1, [Scenario(group_size=12), Scenario(group_size=0)], tmp_path):
        assert largest_difference(on_one["four groups"], other) > 1e-4
