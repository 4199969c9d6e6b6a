"""Reads files of `torch.save` without executing anything in them."""

from __future__ import annotations

import pickle
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calr_cli.errors import CalrError
from calr_cli.models.file_kinds import UNPACKED, kind_of

CONTAINERS = ("state_dict", "model", "teacher", "student")
"""Keys under which programs store the state dict, beside the epoch, figures and optimiser.

Of a teacher and a student, the teacher is the average that the publishers take.
"""

SAVE_HINT = "Write one with torch.save(model.state_dict(), FILE)"


def safe_load(path: Path, error_class: type[CalrError]) -> Any:
    """Read a file of `torch.save` that has tensors and plain values; nothing in the file is executed.

    Besides the types that torch allows, the function reads numpy numbers and returns them as Python numbers,
    because many programs store their best mAP as a numpy number. Options of programs (``argparse.Namespace``
    and the like) are read as mappings.

    Raises:
        CalrError: As ``error_class``: the file is missing, of another kind, damaged or cut short, or has
            other Python objects.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise error_class(f"no file {path}") from error
    except IsADirectoryError as error:
        hint = UNPACKED if (path / "data.pkl").is_file() else ""
        raise error_class(f"{path} is a folder, not a file", hint) from error
    except OSError as error:
        raise error_class(f"cannot read {path}: {error.strerror or error}") from error
    with file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of some files before it refuses them
        try:
            with torch.serialization.safe_globals(ALLOWED):
                return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a parser of arbitrary bytes may stumble over
            raise error_class(*_refusal(path, error)) from error


def _refusal(path: Path, error: Exception) -> tuple[str, str]:
    """What is wrong with a file that torch cannot read or may not read, and what to do."""
    if kind := kind_of(path):
        return f"{path} is {kind.what}", kind.remedy
    with path.open("rb") as file:
        is_pickle = file.read(4).startswith((b"\x80", b"(", b"c", b"PK\x03\x04"))
    if isinstance(error, pickle.UnpicklingError) and is_pickle:
        return f"{path} holds more than tensors and plain values; nothing in it was executed", ""
    return f"{path} is not a torch file, or it is damaged or cut short", ""


def state_dict_of(content: Any, path: Path, error_class: type[CalrError]) -> dict[str, Tensor]:
    """The state dict in what `safe_load` read, plain or in one of ``CONTAINERS``, without ``module.``.

    Raises:
        CalrError: As ``error_class``: there is no state dict.
    """
    if isinstance(content, Mapping):
        content = next((content[key] for key in CONTAINERS if key in content), content)
    if not isinstance(content, Mapping) or not content:
        raise error_class(f"{path} holds no state dict", SAVE_HINT)
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            kind = type(value).__name__
            raise error_class(
                f"{path} holds no plain state dict: its entry '{key}' is of type {kind}", SAVE_HINT
            )
    return {key.removeprefix("module."): value for key, value in content.items()}


class _NumberType:
    """Replaces ``numpy.dtype`` while a file is read, so that no file calls numpy itself."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = state[1]


def _number(kind: _NumberType, data: bytes) -> Any:
    """Replaces numpy's function that makes scalars."""
    dtype = np.dtype(f"{kind.byte_order}{kind.code}")
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"a numpy scalar of type {dtype}")
    return np.frombuffer(data, dtype, count=1)[0].item()


def _number_of_numpy_1(kind: _NumberType, data: bytes) -> Any:
    return _number(kind, data)


class _Options:
    """Replaces a class of options: makes a mapping, which torch fills without calling anything."""

    def __new__(cls, *_: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


OPTIONS = (
    ("argparse", "Namespace"),
    ("types", "SimpleNamespace"),
    ("easydict", "EasyDict"),
    ("yacs.config", "CfgNode"),
    ("pathlib", "Path"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib._local", "PosixPath"),
    ("pathlib._local", "WindowsPath"),
)
"""Classes, by module and name, in which programs keep their options beside the weights."""


def _stand_in(made: Any, module: str, name: str) -> Any:
    """``made``, under the name ``module.name`` for torch to find when a file asks for it."""
    made.__module__, made.__name__, made.__qualname__ = module, name, name
    return made


ALLOWED = [
    _stand_in(_NumberType, "numpy", "dtype"),
    _stand_in(_number, "numpy._core.multiarray", "scalar"),
    _stand_in(_number_of_numpy_1, "numpy.core.multiarray", "scalar"),
    *(_stand_in(type(name, (_Options,), {}), module, name) for module, name in OPTIONS),
]
"""Everything that a file may name beyond torch's own list of tensors and containers."""
