"""Features in a file: written for other programs, read back block by block."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calr_cli.data.parquet import PARQUET
from calr_cli.errors import ConfigError, DataError
from calr_cli.files import atomic_write, is_written_through
from calr_cli.types import FloatArray, IntArray
from calr_cli.use.feature_formats import FORMATS, WRITE_IT, Head
from calr_cli.use.image_lists import paths_from
from calr_cli.use.outputs import check_output

_LENGTH_TOLERANCE = 1e-2
"""How far from 1 the length of a row may be: half precision is allowed."""


@dataclass(frozen=True)
class Features:
    """The features of N images.

    Attributes:
        paths: Of the images, in the order in which they were given.
        rows: (N, D) float32 unit rows.
        model: `Embedder.key` of the model that made them.
        precision: What it computed in, ``fp32`` or ``bf16``.
    """

    paths: tuple[str, ...]
    rows: FloatArray
    model: str
    precision: str


def check_feature_output(path: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Raise unless features can be written to ``path`` without a loss; to be called before they are made.

    Raises:
        ConfigError: See `check_output`; or a file that is there has no features, or pyarrow is missing.
    """
    check_output("--output", path, tuple(FORMATS), inputs)
    kind = path.suffix.lower()
    if kind not in FORMATS:  # a pipe may be called anything, but for this
        raise ConfigError(f"--output {path}: the name must end in {', '.join(FORMATS)}")
    if kind == PARQUET:
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ConfigError(
                f"--output {path}: pyarrow, which writes Parquet, is not installed",
                "Install it with: pip install 'calr-cli[parquet]', or write .npz or .csv",
            ) from None
    if path.is_file() and not is_written_through(path) and path.stat().st_size and not has_features(path):
        raise ConfigError(
            f"--output {path} is there, and it is no file of features: it would be lost",
            "Give another name, or delete it",
        )


def has_features(path: Path) -> bool:
    """Whether a file is one that `write_features` wrote, or another program in the same way."""
    kind = FORMATS.get(path.suffix.lower())
    return kind is not None and kind.has_features(path)


def write_features(path: Path, features: Features) -> None:
    """Write ``features`` in the format that the name ends in, whole or not at all.

    What is in it: see `feature_formats`. Relative paths are written as seen from the file's folder, as in any
    table of images.

    Raises:
        OSError: The folder cannot be written or the disk is full.
    """
    folder = os.path.realpath(path.parent)
    head = Head(
        tuple(path_from(folder, name) for name in features.paths),
        features.rows.shape[1],
        features.model,
        features.precision,
    )
    with atomic_write(path) as temporary:
        FORMATS[path.suffix.lower()].write(temporary, head, features.rows)


def path_from(folder: str, name: str) -> str:
    """The path as a table in ``folder`` calls it; what is absolute stays so."""
    if Path(name).is_absolute():
        return name
    try:
        return os.path.relpath(Path(name).absolute(), folder)
    except ValueError:  # on another drive
        return str(Path(name).absolute())


@dataclass(frozen=True)
class FeatureFile:
    """A file with features, of which only the names are in memory.

    Attributes:
        path: The file.
        paths: Names of the N images.
        dim: D.
        model: `Embedder.key` of the model that made them; "" where the file does not say.
        precision: What it computed in; "" where the file does not say.
    """

    path: Path
    paths: tuple[str, ...]
    dim: int
    model: str
    precision: str

    def __len__(self) -> int:
        return len(self.paths)

    def blocks(self, rows: int) -> Iterator[FloatArray]:
        """The features in order, at most ``rows`` of them at a time, (B, D) float32.

        Raises:
            DataError: Damaged, or a row that is not of unit length.
        """
        first = 0
        for block in FORMATS[self.path.suffix.lower()].blocks(self.path, rows):
            block = block.astype(np.float32, copy=False)
            _require_unit(block, self.path, first)
            first += len(block)
            yield block


def open_features(path: Path) -> FeatureFile:
    """A file written by `write_features`, or by another program in the same way.

    Nothing in the file is executed. Its relative paths are taken from its folder; an ``.npz`` that does not
    say its precision is of another program, or an older one, and its paths are left as they are.

    Raises:
        DataError: Not such a file.
    """
    head = FORMATS[path.suffix.lower()].read_head(path)
    if not head.paths:
        raise DataError(f"{path} has no features", WRITE_IT)
    paths = head.paths
    if head.precision or path.suffix.lower() != ".npz":
        seen_from = paths_from(path.parent)
        paths = tuple(map(seen_from, paths))
    return FeatureFile(path, paths, head.dim, head.model, head.precision)


def _require_unit(block: FloatArray, path: Path, first: int) -> None:
    bad = not_unit(block)
    if len(bad):
        raise DataError(
            f"{path}: row {first + bad[0]} of features is not of unit length",
            "Divide each row by its length: similarities are inner products",
        )


def not_unit(rows: FloatArray) -> IntArray:
    """Positions of the rows that are not of unit length, those with numbers that are none among them."""
    length = np.einsum("nd,nd->n", rows, rows)
    return np.flatnonzero(~(np.abs(length - 1) < _LENGTH_TOLERANCE))
