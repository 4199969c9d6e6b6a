"""Where the backbone's weights start from: random, ImageNet, or a file of the user's."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calr_cli.errors import CalrError, WeightsError
from calr_cli.models.encoder import Encoder
from calr_cli.models.released_weights import cached_weights, fetch_pretrained

__all__ = ["fetch_pretrained", "load_pretrained", "read_state_dict", "safe_load"]

CLASSIFIER_PREFIXES = ("fc.", "classifier.")
KEYS_SHOWN = 8
SAVE_HINT = "Write one with torch.save(model.state_dict(), FILE)"


def load_pretrained(encoder: Encoder, source: str) -> str:
    """Give ``encoder.backbone`` the weights of ``source``; all of them or, on an error, none.

    Never downloads anything: what takes minutes and a network should not begin unasked.

    Args:
        encoder: The encoder to fill, in place.
        source: ``none`` (stays as it is), ``imagenet`` (the cached release), or a file.

    Returns:
        One line saying what the backbone starts from.

    Raises:
        WeightsError: The weights are not cached, cannot be read, or are of another network.
    """
    if source == "none":
        return f"{encoder.arch} starts from random weights"
    if source == "imagenet":
        path = cached_weights(encoder.arch)
        described = f"ImageNet weights ({path.name})"
    else:
        path = Path(source).expanduser()
        described = str(path)
        if not path.exists():
            raise WeightsError(f"no weights file {path}", "Give a path, 'imagenet' or 'none'")
    weights = {
        key: value for key, value in read_state_dict(path).items() if not key.startswith(CLASSIFIER_PREFIXES)
    }
    if problems := _differences(encoder, weights, path):
        raise WeightsError(problems, "Choose the architecture of that file with -a, or another file")
    encoder.backbone.load_state_dict(weights, strict=False)
    return f"{encoder.arch} starts from {described}"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a plain state dict, or one under ``state_dict``, without its ``module.`` prefix.

    Only tensors and plain containers are read: a file with anything else is never executed.

    Raises:
        WeightsError: There is no such file, or it is damaged, or it holds something else.
    """
    content = safe_load(path, WeightsError)
    if isinstance(content, Mapping):
        content = content.get("state_dict", content)
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds no state dict", SAVE_HINT)
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            kind = type(value).__name__
            raise WeightsError(
                f"{path} holds no plain state dict: its entry '{key}' is of type {kind}", SAVE_HINT
            )
    return {key.removeprefix("module."): value for key, value in content.items()}


def safe_load(path: Path, error_class: type[CalrError]) -> Any:
    """Read a file of `torch.save` that holds tensors and plain values; nothing in it is executed.

    Raises:
        CalrError: Of ``error_class``: no such file, damaged or cut short, or other Python objects in it.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise error_class(f"no file {path}") from error
    except IsADirectoryError as error:
        raise error_class(f"{path} is a folder, not a file") from error
    except OSError as error:
        raise error_class(f"cannot read {path}: {error.strerror or error}") from error
    with file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of some files before it refuses them
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            problem = f"{path} holds more than tensors and plain values; nothing in it was executed"
            raise error_class(problem) from error
        except Exception as error:  # whatever a parser of arbitrary bytes may stumble over
            raise error_class(f"{path} is not a torch file, or it is damaged or cut short") from error


def _differences(encoder: Encoder, weights: Mapping[str, Tensor], path: Path) -> list[str]:
    """One line for each way in which ``weights`` are not those of the backbone."""
    own = encoder.backbone.state_dict()
    # Files from before PyTorch 0.4.1 do not count batches; nothing here uses the count.
    missing = [key for key in own if key not in weights and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in weights if key not in own]
    misshapen = [
        f"{key} {tuple(weights[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in weights and weights[key].shape != own[key].shape
    ]
    kinds = {"missing keys": missing, "unexpected keys": unexpected, "keys of another shape": misshapen}
    return [
        f"{path} does not fit {encoder.arch}: {kind} ({len(keys)}): {_shortened(keys)}"
        for kind, keys in kinds.items()
        if keys
    ]


def _shortened(keys: list[str]) -> str:
    more = len(keys) - KEYS_SHOWN
    return ", ".join(keys[:KEYS_SHOWN]) + (f" and {more} more" if more > 0 else "")
