"""The formats of feature files: how each is written, what it says of itself, and its rows by blocks."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.lib import format as npy

from calr_cli.data.parquet import PARQUET
from calr_cli.errors import DataError
from calr_cli.types import FloatArray

WRITE_IT = "Write one with: calr embed --resume model.pth IMAGES --output features.npz"


@dataclass(frozen=True)
class Head:
    """What a file has beside its features.

    Attributes:
        paths: Of the N images, as they stand in the file.
        dim: D.
        model: `Embedder.key` of the model that made them; "" where the file does not say.
        precision: What it computed in; "" where the file does not say.
    """

    paths: tuple[str, ...]
    dim: int
    model: str
    precision: str


class Format(Protocol):
    """A kind of file."""

    def write(self, path: Path, head: Head, rows: FloatArray) -> None:
        """Write a file; ``path`` may be called anything."""
        ...

    def has_features(self, path: Path) -> bool:
        """Whether a file has what `write` writes, as far as can be seen at once."""
        ...

    def read_head(self, path: Path) -> Head:
        """See `Head`.

        Raises:
            DataError: Not such a file.
        """
        ...

    def blocks(self, path: Path, rows: int) -> Iterator[FloatArray]:
        """The features in order, at most ``rows`` of them at a time, of any type of floating point.

        Raises:
            DataError: Not such a file, or it is damaged.
        """
        ...


class Npz:
    """Arrays ``paths`` (N,), ``features`` (N, D), ``model`` and ``precision`` in an uncompressed archive."""

    features = "features.npy"

    def write(self, path: Path, head: Head, rows: FloatArray) -> None:
        """See `Format`."""
        says = {"model": head.model, "precision": head.precision}
        with path.open("wb") as file:  # given a name, NumPy would append .npz to it
            np.savez(file, paths=np.array(head.paths), features=rows, **says)  # type: ignore[arg-type]

    def has_features(self, path: Path) -> bool:
        """See `Format`."""
        try:
            with zipfile.ZipFile(path) as archive:
                return self.features in archive.namelist()
        except (OSError, zipfile.BadZipFile):
            return False

    def read_head(self, path: Path) -> Head:
        """See `Format`."""
        with _told(path):
            with zipfile.ZipFile(path) as archive, archive.open(self.features) as member:
                shape, _ = self._header(member)
            with np.load(path, allow_pickle=False) as arrays:
                paths = tuple(str(name) for name in arrays["paths"].reshape(-1))
                says = [str(arrays[name]) if name in arrays else "" for name in ("model", "precision")]
        if len(shape) != 2 or shape[0] != len(paths):
            raise DataError(f"{path} has features of shape {shape} for {len(paths)} paths", WRITE_IT)
        return Head(paths, shape[1], *says)

    def blocks(self, path: Path, rows: int) -> Iterator[FloatArray]:
        """See `Format`."""
        with _told(path), zipfile.ZipFile(path) as archive, archive.open(self.features) as member:
            (count, dim), kind = self._header(member)
            for first in range(0, count, rows):
                block = np.empty((min(rows, count - first), dim), kind)
                self._fill(member, block)
                yield block

    @staticmethod
    def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of the array whose rows follow."""
        readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        read = readers.get(npy.read_magic(member))
        if read is None:
            raise ValueError
        shape, is_fortran, kind = read(member)
        if is_fortran or kind.kind != "f":
            raise ValueError
        return shape, kind

    @staticmethod
    def _fill(member: IO[bytes], block: Any) -> None:
        view = memoryview(block).cast("B")
        done = 0
        while done < len(view):
            count = member.readinto(view[done:])  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            done += count


class Csv:
    """Columns ``path, f0, f1, ..., model, precision``."""

    def write(self, path: Path, head: Head, rows: FloatArray) -> None:
        """See `Format`."""
        with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["path", *(f"f{d}" for d in range(head.dim)), "model", "precision"])
            for name, row in zip(head.paths, rows, strict=True):
                # The shortest digits that read back as the same float32.
                writer.writerow([name, *row, head.model, head.precision])

    def has_features(self, path: Path) -> bool:
        """See `Format`."""
        try:
            with path.open("rb") as file:
                return file.readline(64).startswith(b"path,f0,")
        except OSError:
            return False

    def read_head(self, path: Path) -> Head:
        """See `Format`."""
        with _told(path), self._rows(path) as (dim, reader):
            paths, says = [], ["", ""]
            for cells in reader:
                paths.append(cells[0])
                says = cells[dim + 1 : dim + 3] or says
        return Head(tuple(paths), dim, *says)

    def blocks(self, path: Path, rows: int) -> Iterator[FloatArray]:
        """See `Format`."""
        with _told(path), self._rows(path) as (dim, reader):
            while lines := [cells[1 : dim + 1] for cells in islice(reader, rows)]:
                yield np.array(lines, np.float32).reshape(len(lines), dim)

    @staticmethod
    @contextmanager
    def _rows(path: Path) -> Iterator[tuple[int, Any]]:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            dim = sum(name == f"f{place}" for place, name in enumerate(header[1:]))
            if header not in (
                names := ["path", *(f"f{d}" for d in range(dim))],
                [*names, "model", "precision"],
            ):
                raise ValueError
            yield dim, reader


class Parquet:
    """Columns ``path`` and ``feature``, a list of D numbers; model and precision in the metadata."""

    def write(self, path: Path, head: Head, rows: FloatArray) -> None:
        """See `Format`."""
        import pyarrow
        from pyarrow import parquet

        lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.reshape(-1)), head.dim)
        names = [name.encode("utf-8", "replace").decode() for name in head.paths]  # Arrow's text is UTF-8
        says = {"calr_model": head.model, "calr_precision": head.precision}
        parquet.write_table(pyarrow.table({"path": names, "feature": lists}, metadata=says), path)

    def has_features(self, path: Path) -> bool:
        """See `Format`."""
        try:
            from pyarrow import ArrowException, parquet
        except ImportError:
            return False
        try:
            return {"path", "feature"} <= set(parquet.read_schema(path).names)
        except (OSError, ArrowException):
            return False

    def read_head(self, path: Path) -> Head:
        """See `Format`."""
        from pyarrow import parquet

        with _told(path):
            schema = parquet.read_schema(path)
            paths = parquet.read_table(path, columns=["path"]).column("path").to_pylist()
            says = [
                (schema.metadata or {}).get(name, b"").decode() for name in (b"calr_model", b"calr_precision")
            ]
            dim = getattr(schema.field("feature").type, "list_size", 0)
            return Head(tuple(map(str, paths)), dim, *says)

    def blocks(self, path: Path, rows: int) -> Iterator[FloatArray]:
        """See `Format`."""
        from pyarrow import parquet

        with _told(path), path.open("rb") as content:
            for batch in parquet.ParquetFile(content).iter_batches(rows, columns=["feature"]):
                lists = batch.column("feature")
                block = lists.flatten().to_numpy().reshape(len(lists), lists.type.list_size)
                yield block.copy()  # of Arrow's own memory, which torch does not take


FORMATS: Mapping[str, Format] = {".npz": Npz(), ".csv": Csv(), PARQUET: Parquet()}
"""By what a name ends in."""


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What reading a damaged or foreign file raises, as one line."""
    kind = path.suffix.lower()
    try:
        yield
    except KeyError:
        raise DataError(f"{path} has no arrays 'paths' and 'features'", WRITE_IT) from None
    # Of a zip file the last is: encrypted.
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, csv.Error, RuntimeError):
        article = "an" if kind == ".npz" else "a"
        raise DataError(f"{path} is not {article} {kind} file, or it is damaged", WRITE_IT) from None
