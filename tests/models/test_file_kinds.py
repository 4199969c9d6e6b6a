"""Files that people give by mistake, as the programs that make them write them."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from calr_cli.errors import CheckpointError
from calr_cli.models.reading import safe_load

STATE = {"conv1.weight": torch.ones(2, 3), "bn.bias": torch.zeros(2)}


def torch_file(path: Path) -> Path:
    torch.save(STATE, path)
    return path


def torchscript(path: Path) -> None:
    program = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    torch.jit.save(program, path)


def data_pkl(path: Path) -> None:
    with zipfile.ZipFile(torch_file(path.with_name("packed.pth"))) as archive:
        path.write_bytes(archive.read("packed/data.pkl"))


def safetensors(path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(torch_file(path.with_name("packed.pth")), "packed.pth")


def zip_of_weights(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(torch_file(path.with_name("packed.pth")), "weights/packed.pth")


def numpy_arrays(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.ones(3))


def numpy_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.ones(3))


def written(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
ONNX = b"\x08\t\x12\x07pytorch\x1a\x062.15.0:\xd7\x01\n\\\n\x0connx::Gemm"


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize(
    ("write", "line"),
    [
        (written(b""), "is empty. Copy or download it again"),
        (
            written(b"\n <!DOCTYPE html><html><title>Google Drive - Quota"),
            "is a web page, not a file of weights.",
        ),
        (
            written(b"<HTML>moved</HTML>"),
            "is a web page, not a file of weights. Download it again: what came",
        ),
        (
            written(POINTER),
            "is a pointer of Git LFS, not the file itself. Fetch it: run `git lfs pull` in its",
        ),
        (data_pkl, "is the data.pkl of an unpacked torch file, which has no tensors in it. Pack its folder"),
        (written(ONNX), "is an ONNX file. Give the weights that it was exported from: calr cannot train or"),
        (
            torchscript,
            "is a program of TorchScript, not a file of weights. Take the weights out of it: torch.s",
        ),
        (
            safetensors,
            "is a safetensors file. Convert it: torch.save(safetensors.torch.load_file(FILE), 'weigh",
        ),
        (
            zip_of_weights,
            "is a zip of 1 other file(s), the first called weights/packed.pth. Unpack it, then gi",
        ),
        (
            written(gzip.compress(b"weights")),
            "is compressed by gzip. Unpack it, then give the file of weights",
        ),
        (tar, "is a tar archive. Unpack it, then give the file of weights that was in it"),
        (
            written(b"\x89HDF\r\n\x1a\n" + bytes(99)),
            "is an HDF5 file, as Keras and Matlab write them. calr reads",
        ),
        (
            numpy_array,
            "is an array of NumPy. calr reads weights of PyTorch: write them there with torch.save",
        ),
        (numpy_arrays, "is an archive of NumPy arrays. calr reads weights of PyTorch: write them there with"),
        (written(b"\xff\xd8\xff\xe0" + bytes(99)), "is an image. Give the file of the weights"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_file_of_another_kind_is_called_by_its_name(
    tmp_path: Path, write: Callable[[Path], object], line: str
) -> None:
    path = tmp_path / "model.pth"
    write(path)
    with pytest.raises(CheckpointError) as error:
        safe_load(path, CheckpointError)
    (said,) = error.value.lines()
    assert said.startswith(f"{path} {line}")


def test_an_unpacked_file_and_how_to_pack_it_again(tmp_path: Path) -> None:
    """Some browsers unpack what they download."""
    shutil.unpack_archive(torch_file(tmp_path / "model.pth"), tmp_path / "unpacked", "zip")
    folder = tmp_path / "unpacked" / "model"
    with pytest.raises(
        CheckpointError, match=r"model is a folder, not a file. Pack its folder again: zip -0"
    ):
        safe_load(folder, CheckpointError)
    with zipfile.ZipFile(tmp_path / "again.pth", "w") as archive:  # as `zip -0 -r` does
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))
    assert safe_load(tmp_path / "again.pth", CheckpointError)["conv1.weight"].shape == (2, 3)


@pytest.mark.parametrize("content", [b'{"error": "not found"}', b"[1, 2]", b"GIF89a", bytes(1000), b"hello"])
def test_what_is_no_torch_file_does_not_hold_more_than_tensors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a torch file, or it is damaged or cut short"):
        safe_load(path, CheckpointError)


def test_a_damaged_torch_file_is_not_called_another(tmp_path: Path) -> None:
    path = torch_file(tmp_path / "model.pth")
    for size in range(1, path.stat().st_size - 1, 37):
        cut = tmp_path / "cut.pth"
        cut.write_bytes(path.read_bytes()[:size])
        with pytest.raises(CheckpointError) as error:
            safe_load(cut, CheckpointError)
        assert error.value.lines() == [f"{cut} is not a torch file, or it is damaged or cut short"]
