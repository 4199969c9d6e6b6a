"""The synthetic dataset: its layout, its promises, and that it is neither hopeless nor trivial untrained."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.metrics import average_precision_score

from calr_cli.errors import DataError
from calr_cli.prepare.datasets.market1501 import MARKET1501
from calr_cli.prepare.datasets.people import make_people
from calr_cli.prepare.datasets.synthetic import make_synthetic

SPLITS = ("bounding_box_train", "query", "bounding_box_test")
NAME = re.compile(r"(\d{4})_c(\d)s1_\d{6}_00\.jpg")


def keys(folder: Path) -> list[tuple[int, int]]:
    """(pid, camera) of every file, in name order; fails on a name that is not Market-1501's."""
    matches = [NAME.fullmatch(path.name) for path in sorted(folder.iterdir())]
    assert all(matches)
    return [(int(match[1]), int(match[2])) for match in matches if match]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.jpg"))}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_synthetic(tmp_path_factory.mktemp("synthetic"), seed=3, num_train_ids=12, num_test_ids=8)


def test_same_arguments_same_bytes_and_another_seed_none_alike(small: Path, tmp_path: Path) -> None:
    again = contents(make_synthetic(tmp_path / "again", seed=3, num_train_ids=12, num_test_ids=8))
    assert again == contents(small)
    other = contents(make_synthetic(tmp_path / "other", seed=4, num_train_ids=12, num_test_ids=8))
    assert not set(other.values()) & set(again.values())


def test_folder_holds_the_three_splits_and_nothing_else(small: Path) -> None:
    assert small.name == "Market-1501-v15.09.15"
    assert sorted(path.name for path in small.iterdir()) == sorted(SPLITS)
    assert [path.name for path in small.parent.iterdir()] == [small.name]  # no temporary folder left


def test_market1501_reads_it_without_a_warning(small: Path) -> None:
    """Training reads the set through the Market-1501 layout, not through this file's pattern."""
    listing = MARKET1501.versions[0].read(small)
    assert listing.warnings == ()
    for split, folder in zip(("train", "query", "gallery"), SPLITS, strict=True):
        found = sorted((entry.pid, entry.camid + 1) for entry in listing.entries if entry.split == split)
        assert found == sorted(keys(small / folder))


def test_images_are_small_upright_jpegs(small: Path) -> None:
    for path in small.rglob("*.jpg"):
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 128))


def test_identities_are_disjoint_between_training_and_test(small: Path) -> None:
    train, query, gallery = ({pid for pid, _ in keys(small / split)} for split in SPLITS)
    assert train == set(range(1, 13))
    assert query == gallery == set(range(13, 21))


def test_each_identity_is_seen_by_two_to_four_cameras_five_to_seven_times_each(small: Path) -> None:
    test_images = keys(small / "query") + keys(small / "bounding_box_test")
    for images in (keys(small / "bounding_box_train"), test_images):
        cameras = defaultdict(set)
        for pid, camera in images:
            cameras[pid].add(camera)
            assert 5 <= images.count((pid, camera)) <= 7
        assert all(2 <= len(seen) <= 4 for seen in cameras.values())
    assert {camera for _, camera in keys(small / "bounding_box_train")} == {1, 2, 3, 4}


def test_one_query_per_identity_and_camera_each_with_a_match_in_another(small: Path) -> None:
    query, gallery = keys(small / "query"), keys(small / "bounding_box_test")
    assert len(query) == len(set(query))
    assert set(query) == set(gallery)
    for pid, camera in query:
        assert any(p == pid and c != camera for p, c in gallery)


def test_cameras_differ_more_than_their_own_images(small: Path) -> None:
    """Mean colour of the border, where no person stands: each pair of cameras is told apart."""
    folder = small / "bounding_box_train"
    borders = defaultdict(list)
    for path, (_, camera) in zip(sorted(folder.iterdir()), keys(folder), strict=True):
        pixels = np.asarray(Image.open(path), np.float64)
        edges = np.concatenate([pixels[80:, :6], pixels[80:, -6:]], axis=1)
        borders[camera].append(edges.mean(axis=(0, 1)) / edges.mean())  # colour cast, not brightness
    means = {camera: np.mean(values, axis=0) for camera, values in borders.items()}
    errors = {c: np.std(values, axis=0).max() / len(values) ** 0.5 for c, values in borders.items()}
    for a in means:
        for b in means:
            assert a == b or np.abs(means[a] - means[b]).max() > 3 * max(errors[a], errors[b])


def test_lighting_varies_inside_a_camera(small: Path) -> None:
    folder = small / "bounding_box_train"
    floors = defaultdict(list)
    for path, (_, camera) in zip(sorted(folder.iterdir()), keys(folder), strict=True):
        floors[camera].append(np.asarray(Image.open(path), np.float64)[90:, :6].mean())
    assert all(np.std(values) / np.mean(values) > 0.03 for values in floors.values())


def test_some_people_dress_alike() -> None:
    """Hard pairs: clothes of nearly one colour on people who differ otherwise."""
    people = make_people(60, np.random.default_rng(0))
    clothes = np.array([[*person.upper, *person.lower] for person in people])
    gaps = np.abs(clothes[:, None] - clothes[None]).max(axis=2) + 255 * np.eye(60, dtype=int)
    assert (gaps.min(axis=1) <= 12).mean() >= 0.25
    assert len(set(people)) == 60


@pytest.mark.parametrize("num_cameras", [2, 6])
def test_other_numbers_of_cameras(tmp_path: Path, num_cameras: int) -> None:
    folder = make_synthetic(tmp_path, num_train_ids=12, num_test_ids=2, num_cameras=num_cameras)
    assert {camera for _, camera in keys(folder / SPLITS[0])} == set(range(1, num_cameras + 1))


@pytest.mark.parametrize("num_cameras", [1, 7])
def test_cameras_that_cannot_be_matched_or_read_are_refused(tmp_path: Path, num_cameras: int) -> None:
    with pytest.raises(DataError) as caught:
        make_synthetic(tmp_path / "root", num_cameras=num_cameras)
    assert str(caught.value) == f"The synthetic dataset cannot have {num_cameras} cameras. Use 2 to 6"
    assert not (tmp_path / "root").exists()


def test_an_existing_folder_is_left_alone(small: Path) -> None:
    before = contents(small)
    with pytest.raises(DataError) as caught:
        make_synthetic(small.parent, seed=9)
    assert str(caught.value) == f"{small} exists. Remove it or choose another folder"
    assert contents(small) == before


def test_an_interrupted_drawing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, calls = Image.Image.save, iter(range(20))

    def full_disk(image: Image.Image, *args: object, **options: object) -> None:
        if next(calls) == 15:
            raise OSError(28, "No space left on device")
        save(image, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        make_synthetic(tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def untrained_features(folder: Path, network: torch.nn.Module) -> np.ndarray:
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    images = [Image.open(p).resize((32, 64), Image.Resampling.BICUBIC) for p in sorted(folder.iterdir())]
    pixels = ((np.stack([np.asarray(image) for image in images]) / 255 - mean) / std).transpose(0, 3, 1, 2)
    with torch.no_grad():
        batches = [network(batch) for batch in torch.split(torch.from_numpy(pixels).float(), 256)]
    return torch.nn.functional.normalize(torch.cat(batches)).numpy()


@pytest.mark.e2e
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_untrained_network_sees_the_camera_first(tmp_path: Path, seed: int) -> None:
    """The dataset's difficulty: refinement over cameras has something to do, and something to start from."""
    folder = make_synthetic(tmp_path, seed=seed)
    torch.manual_seed(seed)
    network = torchvision.models.resnet18(weights=None).eval()
    network.fc = torch.nn.Identity()
    train, query, gallery = (untrained_features(folder / split, network) for split in SPLITS)
    train_keys, query_keys, gallery_keys = (np.array(keys(folder / split)) for split in SPLITS)
    assert 850 <= len(train) <= 1100
    assert 600 <= len(query) + len(gallery) <= 850

    similarity = train @ train.T
    np.fill_diagonal(similarity, -1)
    nearest = similarity.argmax(axis=1)
    assert (train_keys[nearest, 1] == train_keys[:, 1]).mean() >= 0.6

    one_camera = train_keys[:, None, 1] == train_keys[None, :, 1]
    inside = np.where(one_camera, similarity, -1).argmax(axis=1)
    across = np.where(one_camera, -1, similarity).argmax(axis=1)
    right_inside = (train_keys[inside, 0] == train_keys[:, 0]).mean()
    right_across = (train_keys[across, 0] == train_keys[:, 0]).mean()
    assert right_inside >= 0.35  # local labels start from something, ...
    assert right_inside >= right_across + 0.1  # ... more than global labels do

    precisions = []
    for scores, (pid, camera) in zip(query @ gallery.T, query_keys, strict=True):
        kept = (gallery_keys[:, 0] != pid) | (gallery_keys[:, 1] != camera)
        precisions.append(average_precision_score(gallery_keys[kept, 0] == pid, scores[kept]))
    assert 0.03 <= np.mean(precisions) <= 0.3
