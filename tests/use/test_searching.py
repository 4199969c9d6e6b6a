"""What is kept of a gallery is used again, and only where it is the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from calr_cli.errors import DataError, MemoryLimitError
from calr_cli.events import Reporter, SilentReporter
from calr_cli.models.encoder import Encoder
from calr_cli.use import searching
from calr_cli.use.embedding import SHOWN, Embedder
from calr_cli.use.feature_files import Features, write_features
from calr_cli.use.searching import Gallery, open_gallery, search
from tests.support.features import unit_features
from tests.support.heard import Heard
from tests.support.made_up import write_image
from tests.support.small import small_settings


def embedder_of(seed: int = 0, **changes: object) -> Embedder:
    torch.manual_seed(seed)
    return Embedder(Encoder("resnet18", "avg"), small_settings(**changes), None)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for n in range(4):
        write_image(tmp_path / "photos" / f"{n}.png", n)
    (tmp_path / "photos/2-broken.png").write_bytes(b"no image")
    return tmp_path / "photos"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call embedded."""
    counts: list[int] = []
    embed = Embedder.embed

    def counting(self: Embedder, paths: list[str], *rest: object) -> object:
        counts.append(len(paths))
        return embed(self, paths, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Embedder, "embed", counting)
    return counts


def names(gallery: Gallery) -> list[str]:
    return [Path(path).name for path in gallery.paths]


def rows(gallery: Gallery) -> np.ndarray:
    return np.concatenate(list(gallery.file.blocks(2)))


def test_a_gallery_is_embedded_once(photos: Path, made: list[int]) -> None:
    heard = Heard()
    first = open_gallery(embedder_of(), str(photos), heard)
    again = open_gallery(embedder_of(), str(photos), heard)
    assert made == [5]
    assert names(first) == names(again) == ["0.png", "1.png", "2.png", "3.png"]
    np.testing.assert_array_equal(rows(first), rows(again))
    assert heard.warnings == [
        f"{photos}/2-broken.png: cannot be read (not an image): left out",
        f"1 images cannot be read: {photos}/2-broken.png: left out",
    ]


def test_the_same_images_elsewhere_are_the_same_gallery(photos: Path, made: list[int]) -> None:
    open_gallery(embedder_of(), str(photos), SilentReporter())
    (photos / "1.png").rename(photos / "1 by another name.png")
    photos = photos.rename(photos.with_name("moved"))
    moved = open_gallery(embedder_of(), str(photos), SilentReporter())
    assert made == [5]
    assert moved.paths[1] == str(photos / "1 by another name.png")


@pytest.mark.parametrize("change", ["an image", "the order", "the model", "the size", "the file"])
def test_whatever_changes_features_makes_another(
    photos: Path, made: list[int], calr_home: Path, change: str
) -> None:
    open_gallery(embedder_of(), str(photos), SilentReporter())
    embedder = embedder_of()
    if change == "an image":
        write_image(photos / "0.png", 9)
    elif change == "the order":
        (photos / "0.png").rename(photos / "9.png")
    elif change == "the model":
        embedder = embedder_of(seed=1)
    elif change == "the size":
        embedder = embedder_of(data={"height": 64})
    else:
        (kept,) = (calr_home / "galleries").iterdir()
        kept.write_bytes(kept.read_bytes()[:-40])
    gallery = open_gallery(embedder, str(photos), SilentReporter())
    assert made == [5, 5]
    fresh, _ = embedder.embed(gallery.paths, "fresh", SilentReporter())
    np.testing.assert_allclose(rows(gallery), fresh.rows, atol=1e-5)


@pytest.mark.parametrize("change", ["gone", "come"])
def test_images_that_change_meanwhile(
    photos: Path, calr_home: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Rows must never get the names of other images; the next search finds nothing half right either."""
    shutil.copy(photos / "0.png", photos / "3-copy.png")  # of the same content: a digest does not tell them
    digests = searching.content_digests

    def then_changed(paths: list[str], reporter: Reporter) -> list[str]:
        if change == "gone":
            found = digests(paths, reporter)
            (photos / "3-copy.png").unlink()
            return found
        (photos / "0.png").rename(photos / "away")
        found = digests(paths, reporter)
        (photos / "away").rename(photos / "0.png")
        return found

    monkeypatch.setattr(searching, "content_digests", then_changed)
    with pytest.raises(DataError, match="have changed while they were read"):
        open_gallery(embedder_of(), str(photos), SilentReporter())
    assert not (calr_home / "galleries").exists()


def test_features_of_another_model(tmp_path: Path) -> None:
    embedder = embedder_of()
    file = str(tmp_path / "f.npz")
    for features, line in (
        (Features(("x",), unit_features(0, 1, 512), "another"), "was made by another model"),
        (Features(("x",), unit_features(0, 1, 8), embedder.key), "has 8 dimensions, the model 512"),
    ):
        write_features(Path(file), features)
        with pytest.raises(DataError, match=line):
            open_gallery(embedder, file, SilentReporter())
    np.savez(file, features=unit_features(0, 1, 512), paths=["x"])
    heard = Heard()
    assert len(open_gallery(embedder, file, heard)) == 1
    assert heard.warnings == [f"{file} does not say which model made it: taken as made by this one"]


def test_unknown_is_what_nothing_reaches(photos: Path) -> None:
    embedder = embedder_of()
    gallery = open_gallery(embedder, str(photos), SilentReporter())
    queries, _ = embedder.embed([str(photos / "1.png")], "queries", SilentReporter())
    (known,) = search(embedder, gallery, queries, 3, 0.9999)
    assert (known["unknown"], known["results"][0]["path"]) == (False, str(photos / "1.png"))
    assert [found["same"] for found in known["results"]][:1] == [True]
    (unknown,) = search(embedder, gallery, queries, 3, 1.5)
    assert unknown["unknown"] is True
    (undecided,) = search(embedder, gallery, queries, 30, None)
    assert undecided["unknown"] is None
    assert len(undecided["results"]) == 4


def test_many_unreadable_images_are_counted(tmp_path: Path) -> None:
    write_image(tmp_path / "fine.png", 0)
    heard = Heard()
    paths = [*(f"no/{n}.png" for n in range(SHOWN + 5)), str(tmp_path / "fine.png")]
    features, problems = embedder_of().embed(paths, "images", heard)
    assert (features.paths, len(problems)) == ((str(tmp_path / "fine.png"),), SHOWN + 5)
    assert heard.warnings[0] == "no/0.png: the image is gone: left out"
    assert heard.warnings[-1] == "and 5 more images that cannot be read"
    with pytest.raises(DataError, match=r"^no/0\.png: the image is gone \(and 1 more\)\. There is no image"):
        embedder_of().embed(paths[:2], "images", heard)


def test_features_that_do_not_fit_are_refused_before_the_work() -> None:
    with pytest.raises(MemoryLimitError, match=r"^features of 1,000 images would take 4\.1 MB"):
        embedder_of(memory_limit_gb=0.001).embed(["x"] * 1000, "images", SilentReporter())


def test_the_key_is_of_what_makes_features() -> None:
    """Not of the device: features made on a GPU are searched on a laptop."""
    assert embedder_of().key == embedder_of(evaluation={"batch_size": 3}).key
    computing = embedder_of()
    computing.encoder.precision = torch.bfloat16
    assert computing.key == embedder_of().key
    keys = {embedder_of().key, embedder_of(1).key, embedder_of(data={"width": 64}).key}
    assert len(keys) == 3
