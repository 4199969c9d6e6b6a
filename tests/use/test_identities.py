"""Images in identities: the rule, the other ways to say how fine, and how sure each image is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from calr_cli.clustering import label_quality
from calr_cli.distances.knn import knn
from calr_cli.errors import ConfigError
from calr_cli.evaluation.calibration import Calibration, Reliability
from calr_cli.events import SilentReporter
from calr_cli.method.inter import label_epoch
from calr_cli.types import OUTLIER, Neighbours
from calr_cli.use.duplicates import duplicates_of
from calr_cli.use.identities import (
    Fineness,
    Identities,
    closest_pairs,
    confidences,
    find_identities,
    largest_first,
)
from calr_cli.use.piles import Pile
from tests.support.made_up import write_image
from tests.support.small import small_settings

CPU = torch.device("cpu")
PIDS = np.repeat(np.arange(12), 12)


def pile(noise: float = 0.6, shift: float = 0.0) -> Pile:
    """12 images of each of 12 identities by two cameras, each of which shifts its features its own way."""
    rng = np.random.default_rng(0)
    camids = np.arange(len(PIDS)) % 2
    features = rng.normal(size=(12, 24))[PIDS] + noise * rng.normal(size=(len(PIDS), 24))
    features += shift * rng.normal(size=(2, 24))[camids]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    names = tuple(f"{n}.png" for n in range(len(PIDS)))
    digests = [f"{n * 7919 % 1000:03}" for n in range(len(PIDS))]
    return Pile(names, digests, features.astype(np.float32), tuple(map(str, camids)))


def find(images: Pile, calibration: Calibration | None = None, **fineness: object) -> Identities:
    return find_identities(
        small_settings(),
        images,
        Fineness(**fineness),
        calibration,
        CPU,
        SilentReporter(),  # type: ignore[arg-type]
    )


def test_the_rule_finds_the_identities() -> None:
    found = find(pile())
    assert label_quality(found.labels, PIDS).bcubed_f == 1
    assert found.confidence.mean() > 0.95
    assert found.sizes.tolist() == [12] * 12
    assert found.labels[0] == 0, "of equal size: the first image first"


def test_cameras_that_shift_features_do_not_split_identities() -> None:
    """Clustered as of one camera, these fall apart into an identity for each camera."""
    seen, blind = pile(shift=1.5), replace(pile(shift=1.5), cameras=("",) * len(PIDS))
    assert label_quality(find(seen).labels, PIDS).bcubed_f > 0.95
    assert label_quality(find(blind).labels, PIDS).bcubed_recall < 0.8
    bias = find(seen).bias
    assert bias is not None
    assert bias.same_camera > 0.9 > 0.6 > bias.same_camera_by_chance
    assert find(blind).bias is None


def test_names_and_order_do_not_matter() -> None:
    images = pile(noise=1.2)
    order = np.random.default_rng(1).permutation(len(PIDS))
    shuffled = Pile(
        tuple(f"x{n}" for n in range(len(PIDS))),
        [images.digests[n] for n in order],
        images.features[order],
        tuple(images.cameras[n] for n in order),
    )
    one, other = find(images), find(shuffled)
    assert label_quality(one.labels[order], other.labels).bcubed_f == 1
    np.testing.assert_array_equal(one.confidence[order], other.confidence)


def test_the_clusters_of_training(tmp_path: Path) -> None:
    images = pile(noise=1.0)
    images = replace(images, digests=sorted(images.digests))  # in record order, as training has them
    settings = small_settings(inter={"refinement": {"enabled": False}})
    made = label_epoch(settings, images.features, images.camids, None, 0, CPU, SilentReporter())
    found = find(images, as_in_training=True, min_images=1)
    assert (made.global_labels == OUTLIER).any()
    np.testing.assert_array_equal(found.labels == OUTLIER, made.global_labels == OUTLIER)
    kept = made.global_labels != OUTLIER
    assert label_quality(found.labels[kept], made.global_labels[kept]).bcubed_f == 1


def test_as_many_as_asked_for() -> None:
    assert len(find(pile(), count=5).sizes) == 5
    assert len(find(pile(), count=len(PIDS), min_images=1).sizes) == len(PIDS)
    with pytest.raises(ConfigError, match=r"^--num-identities 145: there are only 144 images\. Give a lower"):
        find(pile(), count=145)


def test_by_probability() -> None:
    """A threshold on average linkage: the surer it has to be, the more identities there are."""
    meaning = Calibration(20.0, -8.0, "identities", "x", 1, 1, 11.0, Reliability((0.5,), (0.5,), (1.0,)))
    sizes = [len(find(pile(noise=0.9), meaning, same=same, min_images=1).sizes) for same in (0.05, 0.5, 0.99)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    assert label_quality(find(pile(), meaning, same=0.5).labels, PIDS).bcubed_f == 1


def test_small_groups_are_outliers_and_large_ones_first() -> None:
    labels = np.array([4, 9, 9, OUTLIER, 7, 7, 7, 4])
    assert largest_first(labels).tolist() == [1, 2, 2, OUTLIER, 0, 0, 0, 1]
    assert largest_first(labels, 3).tolist() == [OUTLIER] * 4 + [0, 0, 0, OUTLIER]


def test_confidence_by_hand() -> None:
    """0 and 1 are each other's nearest; 2 and 3 are one identity, and 2 is nearer to 1; 4 is alone."""
    near = Neighbours(
        np.array([[0, 1, 2], [1, 0, 2], [2, 1, 3], [3, 2, 1], [4, 0, 1]]), np.ones((5, 3), np.float32)
    )
    assert confidences(near, np.array([0, 0, 1, 1, OUTLIER])).tolist() == [1, 1, 0, 1, 0]


def test_identities_that_look_like_one() -> None:
    rows = np.eye(4, dtype=np.float32)
    rows[1] = (rows[0] + 0.1 * rows[3]) / np.linalg.norm(rows[0] + 0.1 * rows[3])
    found = closest_pairs(np.repeat(rows[:3], 2, axis=0), np.repeat(np.arange(3), 2), 1)
    assert [(a, b) for a, b, _ in found] == [(0, 1)]
    assert found[0][2] == pytest.approx(float(rows[0] @ rows[1]), abs=1e-6)


def test_duplicates(tmp_path: Path) -> None:
    """The same file under another name, and the same picture saved again; another picture is none."""
    from PIL import Image

    paths = [tmp_path / name for name in ("a.png", "b.png", "c.jpg", "d.png")]
    Image.linear_gradient("L").resize((64, 128)).convert("RGB").save(paths[0])  # noise is not saved as it is
    paths[1].write_bytes(paths[0].read_bytes())
    with Image.open(paths[0]) as image:
        image.save(paths[2], quality=90)
    write_image(paths[3], 1)
    everything = knn(np.ones((4, 2), np.float32) / np.sqrt(2), 4)
    found = duplicates_of([str(path) for path in paths], ["x", "x", "y", "z"], everything)
    assert found == [None, 0, 0, None]
