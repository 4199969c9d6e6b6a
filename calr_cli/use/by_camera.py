"""``--per-camera``: features standardised by camera, where they are used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from calr_cli.data.tables import first_names
from calr_cli.distances.camera_shift import FEWEST, CameraShift, standardise_by_camera
from calr_cli.errors import DataError
from calr_cli.events import Reporter
from calr_cli.prepare.datasets.own import spelt
from calr_cli.types import FloatArray, IntArray
from calr_cli.use.feature_files import Features
from calr_cli.use.searching import BLOCK_ROWS, PER_CAMERA, Gallery


def standardised(features: FloatArray, cameras: Sequence[str], reporter: Reporter) -> FloatArray:
    """Features (N, D) of images of these cameras, standardised; see `standardise_by_camera`.

    Raises:
        DataError: No camera is known, or there are too few images.
    """
    camids = _numbers(cameras, reporter)
    return standardise_by_camera(features, camids, FEWEST)


def by_camera(
    gallery: Gallery, queries: Features, cameras: Sequence[str], reporter: Reporter
) -> tuple[Gallery, Features]:
    """Gallery and queries, both standardised by the means and scales of the gallery's cameras.

    Args:
        gallery: Read once more for that.
        queries: By the gallery's model.
        cameras: Of the queries.
        reporter: Warned of cameras with few images in the gallery.

    Raises:
        DataError: No camera of the gallery is known, or it has too few images.
    """
    camids = _numbers(gallery.cameras, reporter)
    shift = CameraShift(int(camids.max()) + 1, gallery.dim)
    first = 0
    for block in gallery.read(BLOCK_ROWS):
        shift.count(block, camids[first : first + len(block)])
        first += len(block)
    number = dict(zip(map(spelt, gallery.cameras), camids.tolist(), strict=True))
    asked = [number.get(spelt(camera), -1) for camera in cameras]
    if unknown := sorted({camera for camera, camid in zip(cameras, asked, strict=True) if camid < 0}):
        names = first_names([camera or "not known" for camera in unknown])
        reporter.warning(f"the gallery has no image of camera {names}: the mean and scale of all are taken")

    def read(rows: int) -> Iterator[FloatArray]:
        first = 0
        for block in gallery.read(rows):
            yield shift.apply(block, camids[first : first + len(block)])
            first += len(block)

    rows = shift.apply(queries.rows, np.array(asked, np.int64))
    return replace(gallery, read=read), replace(queries, rows=rows, model=queries.model + PER_CAMERA)


def _numbers(cameras: Sequence[str], reporter: Reporter) -> IntArray:
    """(N,) cameras as numbers from 0; warns of those with few images."""
    if not any(cameras):
        raise DataError(
            "--per-camera: no camera of the images is known",
            "Give --pattern with a group camid, such as 'cam(?P<camid>\\d+)', or a table with a column camid",
        )
    if len(cameras) < FEWEST:
        raise DataError(
            f"--per-camera: {len(cameras)} images are too few for a mean and a scale: {FEWEST} are needed",
            "Give more images, or leave --per-camera out",
        )
    names, camids, counts = np.unique(
        np.array([spelt(camera) for camera in cameras]), return_inverse=True, return_counts=True
    )
    few = [name or "not known" for name, n in zip(names.tolist(), counts, strict=True) if n < FEWEST]
    if few:
        reporter.warning(
            f"fewer than {FEWEST} images of camera {first_names(few)}: the mean and scale of all images are "
            "taken for them"
        )
    numbers: IntArray = camids.astype(np.int64)
    return numbers
