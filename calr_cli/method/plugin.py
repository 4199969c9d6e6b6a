"""A Python file of the user's with a loss or a global clustering, taken in as if it were ours."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from calr_cli.allocation import is_gpu_full
from calr_cli.errors import CalrError, ConfigError
from calr_cli.training.objective import Loss, Term
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
    except (Exception, SystemExit) as error:
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


@contextmanager
def called(what: str, path: str) -> Iterator[None]:
    """Inside, ``what`` of the plugin in ``path`` is called; whatever it raises becomes one line.

    Raises:
        ConfigError: It raised an error; names the line of the file.
    """
    try:
        yield
    except CalrError:
        raise
    except (Exception, SystemExit) as error:
        if is_gpu_full(error):
            raise
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path
        ]
        where = f"{path}, line {lines[-1]}" if lines else path
        raise ConfigError(
            f"plugin: {what} in {where}: {type(error).__name__}: {error}", "Mend the file, see docs/extend.md"
        ) from error


@dataclass(frozen=True)
class OwnLoss:
    """A plugin's loss, of which every answer is checked; see `objective.Loss`."""

    loss: Loss
    path: str

    def start(self, features: FloatArray, labels: IntArray, camids: IntArray) -> FloatArray:
        """The plugin's rows, (R, D) float32.

        Raises:
            ConfigError: It fails, or gives something else.
        """
        with called("start", self.path):
            rows = np.asarray(self.loss.start(features, labels, camids), np.float32)
        if rows.ndim != 2 or not np.isfinite(rows).all():
            raise ConfigError(
                f"plugin: start in {self.path} gave shape {rows.shape}, expected (R, D) finite numbers",
                "Mend the file, see docs/extend.md",
            )
        return rows

    def __call__(self, rows: Tensor, labels: IntArray, camids: IntArray) -> OwnTerm:
        """The plugin's term.

        Raises:
            ConfigError: It fails, or the term lacks something.
        """
        with called("loss", self.path):
            term = self.loss(rows, labels, camids)
        missing = [name for name in ("weight", "rows", "losses", "update") if not hasattr(term, name)]
        if missing:
            raise ConfigError(
                f"plugin: what loss gives in {self.path} has no {', '.join(missing)}",
                "Mend the file, see docs/extend.md",
            )
        return OwnTerm(term, self.path)


class OwnTerm:
    """A plugin's term, of which every answer is checked; see `objective.Term`."""

    def __init__(self, term: Term, path: str) -> None:
        self._term, self._path = term, path
        with called("weight", path):
            self.weight = float(term.weight)

    @property
    def rows(self) -> Tensor:
        """(R, D), as they are now."""
        return self._term.rows

    def losses(self, features: Tensor, positions: IntArray) -> Tensor:
        """(B,) losses.

        Raises:
            ConfigError: The plugin fails, or gives something else.
        """
        with called("losses", self._path):
            found = self._term.losses(features, positions)
        if not isinstance(found, Tensor) or found.shape != (len(positions),) or not found.requires_grad:
            kind = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ConfigError(
                f"plugin: losses in {self._path} gave {kind}, expected a tensor "
                f"({len(positions)},) that depends on the features",
                "Mend the file, see docs/extend.md",
            )
        return found

    def update(self, features: Tensor, positions: IntArray) -> None:
        """Move the rows.

        Raises:
            ConfigError: The plugin fails.
        """
        with called("update", self._path):
            self._term.update(features, positions)
