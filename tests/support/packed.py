"""Archives for tests, and what is in a folder."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path


def files_under(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def write_archive(path: Path, contents: Mapping[str, bytes]) -> Path:
    """Pack the contents as the ending of ``path`` says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
    else:
        compression = {".tgz": "gz", ".tar": ""}.get(path.suffix, path.suffix[1:])
        with tarfile.open(path, f"w:{compression}") as tar:
            for name, content in contents.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def packed(ending: str, contents: Mapping[str, bytes], folder: Path) -> bytes:
    """An archive as bytes, to be put into another; ``folder`` is empty again afterwards."""
    path = write_archive(folder / f"inner{ending}", contents)
    content = path.read_bytes()
    path.unlink()
    return content
