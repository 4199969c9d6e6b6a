"""The local labels that the authors of CALR released: one ``cam<k>/pseudo_label.npy`` per camera.

Each file is an (N, 3) array of text: an absolute path on the authors' machine, the label, the camera. Folders
count cameras from 1. The third column counts from 1 for MSMT17 and VeRi-776, and from 0 for the other two
datasets.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np

from calr_cli.data.label_table import REMEDY, LabelRow, LabelTable, label_rows
from calr_cli.data.tables import Problems
from calr_cli.errors import DataError

FOLDER = re.compile(r"cam(0|[1-9]\d{0,8})", re.ASCII)
FILE = "pseudo_label.npy"


def read_official_labels(folder: Path) -> LabelTable:
    """Read all ``cam<k>/pseudo_label.npy`` in ``folder``; the camera of an image is its folder's k.

    Raises:
        DataError: There is no such file, or a file is no such array, lists two cameras, or has a label that
            is not a number. One error names all damaged files.
    """
    try:
        cameras = {
            int(found[1]): child for child in folder.iterdir() if (found := FOLDER.fullmatch(child.name))
        }
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}", REMEDY) from error
    files = {camera: child / FILE for camera, child in sorted(cameras.items()) if (child / FILE).exists()}
    if not files:
        raise DataError(f"{folder} holds no cam<k>/{FILE}", REMEDY)
    rows: list[LabelRow] = []
    problems: list[str] = []
    for camera, path in files.items():
        try:
            rows += _camera_rows(path, camera)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems, REMEDY)
    return LabelTable(folder, rows)


def _camera_rows(path: Path, camera: int) -> list[LabelRow]:
    cells = _text_array(path)
    if len(named := {third for _, _, third in cells}) > 1:
        raise DataError(f"{path} lists images of {len(named)} cameras, a file is of one")
    triples = ((line, name, str(camera), label) for line, (name, label, _) in enumerate(cells, start=1))
    return label_rows(Problems(path, unit="row"), triples)


def _text_array(path: Path) -> list[list[str]]:
    """The rows of an (N, 3) array of text; refuses an array of Python objects and never unpickles it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of some headers before it refuses them
            # Mapped, not read: a header may promise more than there is, or than there is memory for.
            array = np.lib.format.open_memmap(path, mode="r")
            rows: list[list[str]] = array.tolist() if array.ndim == 2 and array.dtype.kind == "U" else []
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # whatever a parser of arbitrary bytes may stumble over
        raise DataError(f"{path} is no plain numpy array, or it is damaged or cut short") from error
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind != "U":
        raise DataError(
            f"{path} is an array of shape {array.shape} and type {array.dtype}, "
            "not of rows of text (path, label, camera)"
        )
    return rows
