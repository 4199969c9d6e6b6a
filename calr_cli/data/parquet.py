"""Reads Parquet files as rows of text, like a CSV file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calr_cli.errors import DataError

PARQUET = ".parquet"


def read_parquet(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The names of the columns as row 0, then the rows from 1; leaves out lists, structures and bytes.

    Raises:
        DataError: pyarrow is not installed, or the file is not Parquet.
        OSError: The file cannot be read.
    """
    try:
        import pyarrow
        from pyarrow import parquet, types
    except ImportError:
        raise DataError(
            f"{path} is Parquet, and pyarrow, which reads it, is not installed",
            "Install it with: pip install 'calr-cli[parquet]', or save the table as CSV",
        ) from None
    with path.open("rb") as content:
        try:
            file = parquet.ParquetFile(content)
            names = [field.name for field in file.schema_arrow if not _is_opaque(field.type, types)]
            yield 0, names
            row = 0
            for batch in file.iter_batches(columns=names):
                for cells in zip(*([_text(v) for v in column.to_pylist()] for column in batch), strict=True):
                    row += 1
                    yield row, list(cells)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{path} is not a Parquet file, or it is damaged", "Write it anew") from error


def _is_opaque(kind: Any, types: Any) -> bool:
    return bool(types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind))


def _text(value: object) -> str:
    if value is None or value != value:  # an empty cell of a column of numbers is NaN
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # whole numbers with an empty cell among them become floating point
    return str(value)
