"""What a file that is no readable torch file is instead, by its first bytes and the names within."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import NamedTuple

HEAD = 4096
"""Bytes looked at."""


class Kind(NamedTuple):
    """What a file is, as the end of "FILE is ...", and what to do."""

    what: str
    remedy: str


AGAIN = "Download it again: what came instead may say that a login or a confirmation is needed"
OUTSIDE = "Unpack it, then give the file of weights that was in it"
CONVERT = "calr reads weights of PyTorch: write them there with torch.save(model.state_dict(), FILE)"

MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (
        b"version https://git-lfs.github.com/spec/",
        Kind("a pointer of Git LFS, not the file itself", "Fetch it: run `git lfs pull` in its repository"),
    ),
    (b"\x1f\x8b", Kind("compressed by gzip", OUTSIDE)),
    (b"BZh", Kind("compressed by bzip2", OUTSIDE)),
    (b"\xfd7zXZ\x00", Kind("compressed by xz", OUTSIDE)),
    (b"\x28\xb5\x2f\xfd", Kind("compressed by zstd", OUTSIDE)),
    (b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", OUTSIDE)),
    (b"Rar!", Kind("a RAR archive", OUTSIDE)),
    (b"\x89HDF\r\n", Kind("an HDF5 file, as Keras and Matlab write them", CONVERT)),
    (b"\x93NUMPY", Kind("an array of NumPy", CONVERT)),
    (b"\x89PNG", Kind("an image", "Give the file of the weights")),
    (b"\xff\xd8\xff", Kind("an image", "Give the file of the weights")),
)

UNPACKED = "Pack its folder again: zip -0 -r FILE.pth FOLDER; or fetch the file again"
SAFETENSORS = "Convert it: torch.save(safetensors.torch.load_file(FILE), 'weights.pth')"
TORCHSCRIPT = "Take the weights out of it: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
ONNX = "Give the weights that it was exported from: calr cannot train or fold an ONNX file"


def kind_of(path: Path) -> Kind | None:
    """What the file is, or None: a torch file, damaged or not, or nothing that is known here.

    Raises:
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        return Kind("empty", "Copy or download it again")
    for magic, kind in MAGIC:
        if head.startswith(magic):
            return kind
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return Kind("a web page, not a file of weights", AGAIN)
    if head.startswith(b"PK"):
        return _kind_of_zip(path)
    if head[257:262] == b"ustar":
        return Kind("a tar archive", OUTSIDE)
    if head[8:10] in (b'{"', b"{ ") and 2 <= struct.unpack("<Q", head[:8])[0] <= size - 8:
        return Kind("a safetensors file", SAFETENSORS)
    if b"\x07\x00\x00\x00storage" in head and head.startswith(b"\x80") and b"protocol" not in head[:64]:
        return Kind("the data.pkl of an unpacked torch file, which has no tensors in it", UNPACKED)
    if path.suffix.lower() == ".onnx" or (head[0] == 8 and head[2:3] in (b"\x12", b"\x1a", b"\x3a")):
        return Kind("an ONNX file", ONNX)
    return None


def _kind_of_zip(path: Path) -> Kind | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError):  # the last: of an unknown version
        return None
    within = {name.partition("/")[2] for name in names}
    if "constants.pkl" in within:
        return Kind("a program of TorchScript, not a file of weights", TORCHSCRIPT)
    if "data.pkl" in within:
        return None
    if names and all(name.endswith(".npy") for name in names):
        return Kind("an archive of NumPy arrays", CONVERT)
    if "model.weights.h5" in names:
        return Kind("a model of Keras", CONVERT)
    first = f", the first called {names[0]}" if names else ""
    return Kind(f"a zip of {len(names)} other file(s){first}", OUTSIDE)
