"""Features standardised by camera where they are used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from calr_cli.distances.camera_shift import FEWEST, CameraShift, standardise_by_camera
from calr_cli.errors import DataError
from calr_cli.events import SilentReporter
from calr_cli.use.by_camera import by_camera, standardised
from calr_cli.use.feature_files import Features
from calr_cli.use.searching import Gallery
from tests.support.features import unit_features
from tests.support.heard import Heard

COUNT, DIM = 60, 12
CAMIDS = np.arange(COUNT) % 3


def seen() -> np.ndarray:
    """60 images by three cameras, each of which moves features its own way."""
    rows = unit_features(0, COUNT, DIM) + 2 * unit_features(1, 3, DIM)[CAMIDS]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def gallery_of(rows: np.ndarray, cameras: list[str]) -> Gallery:
    def read(size: int) -> Any:
        for first in range(0, len(rows), size):
            yield rows[first : first + size]

    none: Any = None
    return Gallery(tuple(map(str, range(len(rows)))), DIM, none, read, tuple(cameras))


def test_a_gallery_read_in_blocks_gets_the_same_features_as_one_in_memory() -> None:
    rows = seen()
    queries = Features(("q",), rows[:1], "model", "fp32")
    found, asked = by_camera(gallery_of(rows, list(map(str, CAMIDS))), queries, ["0"], SilentReporter())
    expected = standardise_by_camera(rows, CAMIDS)
    np.testing.assert_allclose(np.concatenate(list(found.read(7))), expected, atol=2e-6)
    np.testing.assert_allclose(asked.rows, expected[:1], atol=2e-6)
    assert asked.model == "model-per-camera"
    nearest = (expected @ expected.T - 2 * np.eye(COUNT)).argmax(axis=1)
    before = (rows @ rows.T - 2 * np.eye(COUNT)).argmax(axis=1)
    assert (CAMIDS[nearest] == CAMIDS).mean() < 0.5 < (CAMIDS[before] == CAMIDS).mean()


def test_a_camera_with_few_images_takes_what_all_have() -> None:
    rows, camids = seen(), np.where(np.arange(COUNT) < FEWEST - 1, 0, 1)
    cameras = ["007" if camid == 0 else "1" for camid in camids]
    heard = Heard()
    found = standardised(rows, cameras, heard)
    assert heard.warnings == [
        f"fewer than {FEWEST} images of camera 7: the mean and scale of all images are taken for them"
    ]
    everything = standardise_by_camera(rows, np.zeros(COUNT, np.int64))
    np.testing.assert_allclose(found[camids == 0], everything[camids == 0], atol=1e-6)
    shift = CameraShift(2, DIM)
    shift.count(rows, camids)
    np.testing.assert_allclose(shift.apply(rows, camids), found, atol=2e-6)


def test_a_query_of_a_camera_that_the_gallery_does_not_know() -> None:
    rows, heard = seen(), Heard()
    queries = Features(("q", "r"), rows[:2], "model", "fp32")
    gallery = gallery_of(rows, list(map(str, CAMIDS)))
    _, asked = by_camera(gallery, queries, ["9", ""], heard)
    assert heard.warnings == [
        "the gallery has no image of camera not known, 9: the mean and scale of all are taken"
    ]
    everything = standardise_by_camera(rows, np.zeros(COUNT, np.int64))
    np.testing.assert_allclose(asked.rows, everything[:2], atol=2e-6)


def test_nothing_to_standardise_by() -> None:
    with pytest.raises(DataError, match=r"^--per-camera: no camera of the images is known\. Give --pattern"):
        standardised(seen(), [""] * COUNT, SilentReporter())
    with pytest.raises(
        DataError, match=r"^--per-camera: 3 images are too few for a mean and a scale: 16 are"
    ):
        standardised(seen()[:3], ["1"] * 3, SilentReporter())
    few = replace(gallery_of(seen()[:3], ["1"] * 3))
    with pytest.raises(DataError, match="3 images are too few"):
        by_camera(few, Features((), seen()[:0], "model", "fp32"), [], SilentReporter())
