"""A Python file of the user's with a loss or a global clustering, taken in as if it were ours."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calr_cli.errors import ConfigError
from calr_cli.training.objective import Loss
from calr_cli.types import OUTLIER, FloatArray, IntArray


@dataclass(frozen=True)
class Plugin:
    """What such a file may define, by these names.

    Attributes:
        cluster: From features (N, D) and camids (N,) to labels (N,); in place of the global clustering.
        loss: Added to the objective of stage 2; see `objective.Loss`.
    """

    cluster: Callable[[FloatArray, IntArray], IntArray] | None = None
    loss: Loss | None = None

    @property
    def names(self) -> list[str]:
        """What it defines."""
        return [name for name, value in vars(self).items() if value is not None]


@cache
def load_plugin(path: str | None) -> Plugin:
    """Run the file at ``path`` and take what it defines; nothing without one.

    Raises:
        ConfigError: It is not there, it cannot be run, or it defines neither.
    """
    if path is None:
        return Plugin()
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(f"plugin: no file {path}", "Give a Python file, see docs/extend.md")
    name = f"calr_plugin_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]}"
    specification = importlib.util.spec_from_file_location(name, file)
    if specification is None or specification.loader is None:
        raise ConfigError(f"plugin: {path} is not a Python file", "Its name has to end in .py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"plugin: {path} cannot be run: {type(error).__name__}: {error}") from error
    found = Plugin(getattr(module, "cluster", None), getattr(module, "loss", None))
    if not found.names:
        raise ConfigError(
            f"plugin: {path} defines neither cluster nor loss", "Define one of them, see docs/extend.md"
        )
    if found.cluster is not None and not callable(found.cluster):
        raise ConfigError(f"plugin: cluster in {path} is not a function", "See docs/extend.md")
    if found.loss is not None and not (callable(found.loss) and hasattr(found.loss, "start")):
        raise ConfigError(
            f"plugin: loss in {path} has to be callable and to have a function start", "See docs/extend.md"
        )
    return found


def checked_labels(labels: npt.ArrayLike, num_images: int, remedy: str) -> IntArray:
    """The labels (N,) of a clustering that is not ours, as int64.

    Raises:
        ConfigError: Not a whole number for each image, or numbers that are not 0..K-1 with ``OUTLIER``.
    """
    array = np.asarray(labels)
    if array.shape != (num_images,) or array.dtype.kind not in "iu":
        raise ConfigError(
            f"plugin: cluster gave {array.dtype} of shape {array.shape}, expected {num_images} whole numbers",
            remedy.capitalize(),
        )
    array = array.astype(np.int64)
    named = np.unique(array[array != OUTLIER])
    if not np.array_equal(named, np.arange(len(named))):
        raise ConfigError(
            f"plugin: the labels of cluster have to be {OUTLIER} for outliers and 0..K-1 without a gap",
            remedy.capitalize(),
        )
    return array
