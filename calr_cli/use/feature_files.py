"""Features in a file: written for other programs, read back block by block."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from calr_cli.data.parquet import PARQUET
from calr_cli.errors import ConfigError, DataError
from calr_cli.files import atomic_write
from calr_cli.types import FloatArray

FORMATS = (".npz", ".csv", PARQUET)

_LENGTH_TOLERANCE = 1e-2
"""How far from 1 the length of a row may be: half precision is allowed."""

_WRITE_IT = "Write one with: calr embed --resume model.pth IMAGES --output features.npz"


@dataclass(frozen=True)
class Features:
    """The features of N images.

    Attributes:
        paths: Of the images, in the order in which they were given.
        rows: (N, D) float32 unit rows.
        model: `Embedder.key` of the model that made them.
    """

    paths: tuple[str, ...]
    rows: FloatArray
    model: str


def check_output(path: Path) -> None:
    """Nothing, if features can be written as this kind of file; to be called before they are made.

    Raises:
        ConfigError: Another kind of file, or pyarrow is missing.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"--output {path}: the name must end in {', '.join(FORMATS)}")
    if path.is_dir():
        raise ConfigError(f"--output {path} is a folder", "Give the name of a file")
    if path.suffix == PARQUET:
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ConfigError(
                f"--output {path}: pyarrow, which writes Parquet, is not installed",
                "Install it with: pip install 'calr-cli[parquet]', or write .npz or .csv",
            ) from None


def write_features(path: Path, features: Features) -> None:
    """Write ``features`` in the format that the name ends in, whole or not at all.

    ``.npz``: arrays ``paths``, ``features`` (N, D) and ``model``. ``.csv``: columns ``path, f0, f1, ...``.
    ``.parquet``: columns ``path`` and ``feature``, a list of D numbers.

    Raises:
        ConfigError: See `check_output`.
        OSError: The folder cannot be written or the disk is full.
    """
    check_output(path)
    writers = {".npz": _write_npz, ".csv": _write_csv, PARQUET: _write_parquet}
    with atomic_write(path) as temporary:
        writers[path.suffix](temporary, features)


def _write_npz(path: Path, features: Features) -> None:
    with path.open("wb") as file:  # given a name, NumPy would append .npz to it
        np.savez(file, paths=np.array(features.paths), features=features.rows, model=features.model)


def _write_csv(path: Path, features: Features) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", *(f"f{d}" for d in range(features.rows.shape[1]))])
        for name, row in zip(features.paths, features.rows, strict=True):
            writer.writerow([name, *row])  # the shortest digits that read back as the same float32


def _write_parquet(path: Path, features: Features) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = pyarrow.FixedSizeListArray.from_arrays(
        pyarrow.array(features.rows.reshape(-1)), features.rows.shape[1]
    )
    names = [name.encode("utf-8", "replace").decode() for name in features.paths]  # Arrow's text is UTF-8
    table = pyarrow.table({"path": names, "feature": rows}, metadata={"calr_model": features.model})
    parquet.write_table(table, path)


@dataclass(frozen=True)
class FeatureFile:
    """An ``.npz`` file with features, of which only the names are in memory.

    Attributes:
        path: The file.
        paths: Names of the N images.
        dim: D.
        model: `Embedder.key` of the model that made them; "" where the file does not say.
    """

    path: Path
    paths: tuple[str, ...]
    dim: int
    model: str

    def __len__(self) -> int:
        return len(self.paths)

    def blocks(self, rows: int) -> Iterator[FloatArray]:
        """The features in order, at most ``rows`` of them at a time, (B, D) float32.

        Raises:
            DataError: Damaged, or a row that is not of unit length.
        """
        with _told(self.path), zipfile.ZipFile(self.path) as archive, archive.open(_FEATURES) as member:
            _, kind = _header(member)
            for first in range(0, len(self), rows):
                shape = (min(rows, len(self) - first), self.dim)
                block = np.empty(shape, kind)
                _fill(member, block)
                block = block.astype(np.float32, copy=False)
                _require_unit(block, self.path, first)
                yield block


def open_features(path: Path) -> FeatureFile:
    """An ``.npz`` file written by `write_features`, or by another program in the same way.

    Nothing in the file is executed.

    Raises:
        DataError: Not such a file.
    """
    with _told(path):
        with zipfile.ZipFile(path) as archive, archive.open(_FEATURES) as member:
            shape, _ = _header(member)
        with np.load(path, allow_pickle=False) as arrays:
            paths = tuple(str(name) for name in arrays["paths"].reshape(-1))
            model = str(arrays["model"]) if "model" in arrays else ""
    if len(shape) != 2 or shape[0] != len(paths):
        raise DataError(f"{path} has features of shape {shape} for {len(paths)} paths", _WRITE_IT)
    if not paths:
        raise DataError(f"{path} has no features", _WRITE_IT)
    return FeatureFile(path, paths, shape[1], model)


_FEATURES = "features.npy"


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What reading a damaged or foreign archive raises, as one line."""
    try:
        yield
    except KeyError:
        raise DataError(f"{path} has no arrays 'paths' and 'features'", _WRITE_IT) from None
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError):  # the last: encrypted
        raise DataError(f"{path} is not an .npz file, or it is damaged", _WRITE_IT) from None


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array whose rows follow."""
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(npy.read_magic(member))
    if read is None:
        raise ValueError
    shape, is_fortran, kind = read(member)
    if is_fortran or kind.kind != "f":
        raise ValueError
    return shape, kind


def _fill(member: IO[bytes], block: Any) -> None:
    view = memoryview(block).cast("B")
    done = 0
    while done < len(view):
        count = member.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        done += count


def _require_unit(block: FloatArray, path: Path, first: int) -> None:
    length = np.einsum("nd,nd->n", block, block)
    bad = np.flatnonzero(~(np.abs(length - 1) < _LENGTH_TOLERANCE))
    if len(bad):
        raise DataError(
            f"{path}: row {first + bad[0]} of features is not of unit length",
            "Divide each row by its length: similarities are inner products",
        )
