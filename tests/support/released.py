"""Local labels in the form in which the authors of CALR released theirs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

PREFIX = "/data1/another/machine"


def write_released(folder: Path, rows: Iterable[tuple[str, int, int]], from_one: bool = True) -> Path:
    """Write (path, camid from 0, label) as ``cam<k>/pseudo_label.npy``, k from 1 as released, or from 0."""
    cameras: dict[int, list[list[str]]] = {}
    for path, camid, label in rows:
        cameras.setdefault(camid + from_one, []).append([f"{PREFIX}/{path}", str(label), str(camid)])
    for camera, cells in cameras.items():
        (folder / f"cam{camera}").mkdir(parents=True)
        np.save(folder / f"cam{camera}" / "pseudo_label.npy", np.array(cells))
    return folder
