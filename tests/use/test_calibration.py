"""Calibration by clusters; that by identities is tested with ``evaluate --calibrate``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calr_cli.errors import DataError
from calr_cli.events import SilentReporter
from calr_cli.models.encoder import Encoder
from calr_cli.types import Dataset, ImageSet
from calr_cli.use import calibration as module
from calr_cli.use.calibration import calibrate_by_clusters
from tests.support.small import small_settings

IDENTITIES, EACH = 10, 6
COUNT = IDENTITIES * EACH


def unlabelled(cameras: int) -> Dataset:
    """Images of which nothing but the camera is known; there is no need of files."""
    numbers = np.arange(COUNT)
    names = tuple(map(str, numbers))
    images = ImageSet(Path("nowhere"), names, np.full(COUNT, -1), numbers % cameras, names)
    return Dataset("street", images, images.subset(numbers[:0]), images.subset(numbers[:0]))


@pytest.fixture
def features(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets how far the features of the images are from those of their identity."""

    def use(noise: float) -> None:
        rng = np.random.default_rng(0)
        rows = np.repeat(rng.normal(size=(IDENTITIES, 32)), EACH, axis=0)
        rows += noise * rng.normal(size=rows.shape)
        rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        monkeypatch.setattr(module, "build_pixels", lambda *_: None)
        monkeypatch.setattr(module, "build_extractor", lambda *_: lambda *_, **__: rows)

    return use


@pytest.mark.parametrize(("cameras", "pairs"), [(2, 10 * 6 * 3), (1, 10 * 6 * 5)])
def test_pairs_of_a_cluster_seen_by_two_cameras(
    features: Callable[[float], None], cameras: int, pairs: int
) -> None:
    """Where there is one camera only, its own pairs have to do."""
    features(0.3)
    settings, encoder = small_settings(), Encoder("resnet18", "avg")
    found = calibrate_by_clusters(settings, encoder, unlabelled(cameras), SilentReporter())
    assert (found.source, found.same_pairs, found.expected_matches) == ("clusters", pairs, pairs / COUNT)
    assert found.probability(0.95) > 0.9 > 0.1 > found.probability(0.1)


def test_clusters_are_made_as_in_training(features: Callable[[float], None]) -> None:
    """Two ways of clustering, one of which the features do not allow."""
    features(0.3)
    by_links = {"min_similarity": 0.99}
    by_jaccard = {"method": "jaccard", "standardise": True, "k1": EACH, "k2": 2, **by_links}
    encoder = Encoder("resnet18", "avg")
    found = calibrate_by_clusters(
        small_settings(inter={"clustering": by_jaccard}), encoder, unlabelled(2), SilentReporter()
    )
    assert found.same_pairs == 10 * 6 * 3
    with pytest.raises(DataError, match="form 0 clusters"):
        calibrate_by_clusters(
            small_settings(inter={"clustering": by_links}), encoder, unlabelled(2), SilentReporter()
        )


def test_no_clusters(features: Callable[[float], None]) -> None:
    features(100)
    settings = small_settings(inter={"clustering": {"min_similarity": 0.99}})
    with pytest.raises(DataError, match=r"^the training images of street form 0 clusters: nothing to calib"):
        calibrate_by_clusters(settings, Encoder("resnet18", "avg"), unlabelled(2), SilentReporter())
