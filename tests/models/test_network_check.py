from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calr_cli.models.network_check import NetworkCheck, shapes
from tests.conftest import GOLDEN

ARCH = "resnet18"
CHECK = NetworkCheck(ARCH)


@pytest.fixture
def weights() -> dict[str, Tensor]:
    return {key: torch.zeros(shape) for key, shape in shapes(ARCH).items()}


def test_the_shapes_are_those_of_the_published_file() -> None:
    golden = json.loads((GOLDEN / "resnet50_ibn_a_state_dict_shapes.json").read_text())
    assert shapes("resnet_ibn50a") == {key: tuple(shape) for key, shape in golden.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("counted", [True, False], ids=["", "before PyTorch 0.4.1"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_forms_of_the_right_file(
    tmp_path: Path, weights: dict[str, Tensor], prefix: str, counted: bool, wrapped: bool
) -> None:
    state = {
        prefix + key: value
        for key, value in weights.items()
        if counted or not key.endswith("num_batches_tracked")
    }
    torch.save({"state_dict": state, "epoch": 7} if wrapped else state, tmp_path / "w.pth.tar")
    assert CHECK.problem(tmp_path / "w.pth.tar") == ""


def test_other_networks(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    path = tmp_path / "w.pth"

    def problem(state: dict[str, Tensor]) -> str:
        torch.save(state, path)
        return CHECK.problem(path)

    of_another = f"is of another network than {ARCH}: %d keys are missing, left over or of another shape, %s"
    assert problem({**weights, "zz": torch.ones(1)}) == of_another % (1, "zz among them")
    without = {key: value for key, value in weights.items() if not key.startswith("fc.")}
    assert problem(without) == of_another % (2, "fc.bias among them")
    assert problem({**weights, "fc.bias": torch.ones(7)}) == of_another % (1, "fc.bias among them")
    not_finite = {**weights, "fc.bias": torch.full((1000,), float("nan"))}
    assert problem(not_finite) == "holds values that are not finite numbers"
    path.write_bytes(b"")
    assert CHECK.problem(path) == "is empty"
    torch.save({"state_dict": weights, "number": Fraction(1, 2)}, path)
    assert CHECK.problem(path) == "holds more than tensors and plain values; nothing in it was executed"
