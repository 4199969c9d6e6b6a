from __future__ import annotations

import os
import pickle
import sys
from argparse import Namespace
from collections import OrderedDict
from contextlib import suppress
from fractions import Fraction
from pathlib import Path, PurePosixPath
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from calr_cli.errors import WeightsError
from calr_cli.models.reading import safe_load, state_dict_of

MORE = "FILE holds more than tensors and plain values; nothing in it was executed"


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as error:
        safe_load(path, WeightsError)
    return str(error.value).replace(str(path), "FILE")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "number",
    [np.float64(0.831), np.float32(-2.5), np.int64(7), np.uint8(3), np.bool_(True)],
)
def test_numbers_of_numpy_are_read_as_python_ones(tmp_path: Path, number: Any, zipped: bool) -> None:
    torch.save({"best_mAP": number}, tmp_path / "f.pth", _use_new_zipfile_serialization=zipped)
    read = safe_load(tmp_path / "f.pth", WeightsError)["best_mAP"]
    assert read == number.item()
    assert type(read) is type(number.item())


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numbers_by_the_names_of_both_numpy_1_and_2(tmp_path: Path, module: bytes) -> None:
    path = tmp_path / "f.pth"
    torch.save({"best_mAP": np.float64(0.5)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    (written,) = {name for name in (b"numpy.core", b"numpy._core") if b"c" + name + b".multi" in content}
    path.write_bytes(content.replace(b"c" + written + b".multiarray\n", b"c" + module + b"\n"))
    assert safe_load(path, WeightsError) == {"best_mAP": 0.5}


def test_reading_leaves_torch_as_it_was(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    torch.save({"best_mAP": np.float64(0.5)}, tmp_path / "f.pth")
    safe_load(tmp_path / "f.pth", WeightsError)
    assert set(torch.serialization.get_safe_globals()) == before
    assert np.dtype("f8") == np.float64  # what stands in for it is gone


@pytest.mark.parametrize(
    "other", [np.zeros(3), np.str_("a"), np.zeros(1, "i4,f4")[0], np.datetime64("2024-01-01"), Fraction(1, 2)]
)
def test_other_objects_are_refused(tmp_path: Path, other: object) -> None:
    torch.save({"x": other}, tmp_path / "f.pth")
    assert refusal(tmp_path / "f.pth") == MORE


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.place),)


class TrapWithinANumber(Trap):
    """The same, as an argument of what numpy makes numbers with."""

    def __reduce__(self) -> tuple[object, ...]:
        return np.float64(0).__reduce__()[0], (np.dtype("f8"), Trap(self.place))


@pytest.mark.parametrize("trap", [Trap, TrapWithinANumber])
@pytest.mark.parametrize("form", ["torch", "torch, legacy", 0, 2, 4])
def test_a_pickle_with_code_is_refused_and_not_executed(
    tmp_path: Path, trap: type[Trap], form: str | int
) -> None:
    path, content = tmp_path / "f.pth", {"state_dict": {}, "best_mAP": trap(tmp_path / "sprung")}
    if isinstance(form, int):
        path.write_bytes(pickle.dumps(content, form))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    assert refusal(path) == MORE
    assert not (tmp_path / "sprung").exists()
    with suppress(TypeError, ValueError):  # of numpy, once the trap is sprung
        pickle.loads(pickle.dumps(content))  # the control: a trap it is
    assert (tmp_path / "sprung").exists()


def test_where_programs_keep_the_state_dict(tmp_path: Path) -> None:
    state = {"module.a": torch.ones(1)}
    other = {"module.a": torch.zeros(1)}
    for content in (
        state,
        {"state_dict": state, "epoch": 3},
        {"model": state, "optimizer": {}},
        {"student": other, "teacher": state, "args": {}},
        {"student": state},
    ):
        assert state_dict_of(content, tmp_path, WeightsError) == {"a": torch.ones(1)}


class EasyDict(dict[str, object]):
    """As the package of that name has it: a mapping with attributes."""


def test_options_beside_the_weights_are_read_as_mappings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("easydict")
    monkeypatch.setattr(module, "EasyDict", EasyDict, raising=False)
    monkeypatch.setitem(sys.modules, "easydict", module)
    monkeypatch.setattr(EasyDict, "__module__", "easydict")
    easy = EasyDict(lr=1e-3)
    easy.__dict__["depth"] = 3
    content = {
        "teacher": {"a": torch.ones(1)},
        "args": Namespace(lr=1e-3, more=Namespace(paths=[PurePosixPath("/tmp/out")])),
        "simple": SimpleNamespace(a=[1, 2]),
        "easy": easy,
    }
    for zipped in (True, False):
        torch.save(content, tmp_path / "f.pth", _use_new_zipfile_serialization=zipped)
        found = safe_load(tmp_path / "f.pth", WeightsError)
        assert torch.equal(found["teacher"]["a"], torch.ones(1))
        assert [type(found[name]) for name in ("args", "simple", "easy")] == 3 * [OrderedDict]
