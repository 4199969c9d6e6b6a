"""What is kept of a gallery is used again, and only where it is the same."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from calr_cli.errors import DataError, MemoryLimitError
from calr_cli.events import Reporter, SilentReporter
from calr_cli.models.encoder import Encoder
from calr_cli.use import feature_store, kept_features, searching
from calr_cli.use.embedding import SHOWN, Embedder
from calr_cli.use.feature_files import Features, write_features
from calr_cli.use.searching import Gallery, search
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
    rows_of = Embedder.rows_of

    def counting(self: Embedder, images: list[str], *rest: object, **more: object) -> object:
        counts.append(len(images))
        return rows_of(self, images, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Embedder, "rows_of", counting)
    return counts


def open_gallery(embedder: Embedder, source: object, reporter: Reporter) -> Gallery:
    return searching.open_gallery(embedder, [str(source)], reporter)


def names(gallery: Gallery) -> list[str]:
    return [Path(path).name for path in gallery.paths]


def rows(gallery: Gallery) -> np.ndarray:
    return np.concatenate(list(gallery.read(2)))


def test_a_gallery_is_embedded_once(photos: Path, made: list[int]) -> None:
    heard = Heard()
    first = open_gallery(embedder_of(), photos, heard)
    again = open_gallery(embedder_of(), photos, heard)
    assert made == [5, 1]  # what cannot be read is tried again
    assert names(first) == names(again) == ["0.png", "1.png", "2.png", "3.png"]
    np.testing.assert_array_equal(rows(first), rows(again))
    assert heard.warnings == [f"{photos}/2-broken.png: cannot be read (not an image): left out"] * 2


@pytest.mark.parametrize(
    ("change", "computed"),
    [
        ("nothing", 0),
        ("an image", 1),
        ("the order", 0),
        ("a new one", 1),
        ("one less", 0),
        ("a copy", 0),
        ("the folder", 0),
        ("the model", 4),
        ("the size", 4),
        ("the precision", 4),
    ],
)
def test_only_what_changed_is_computed(photos: Path, made: list[int], change: str, computed: int) -> None:
    (photos / "2-broken.png").unlink()
    open_gallery(embedder_of(), photos, SilentReporter())
    embedder = embedder_of(seed=1 if change == "the model" else 0)
    if change == "an image":
        write_image(photos / "0.png", 9)
    elif change == "the order":
        (photos / "0.png").rename(photos / "9.png")
    elif change == "a new one":
        write_image(photos / "1a.png", 9)
    elif change == "one less":
        (photos / "1.png").unlink()
    elif change == "a copy":
        shutil.copy(photos / "3.png", photos / "0a.png")
    elif change == "the folder":
        photos = photos.rename(photos.with_name("moved"))
    elif change == "the size":
        embedder = embedder_of(data={"height": 64})
    elif change == "the precision":
        embedder = embedder.computing_in("bf16")
    gallery = open_gallery(embedder, photos, SilentReporter())
    assert made == [4, computed][: 1 + bool(computed)]
    assert list(gallery.paths) == sorted(map(str, photos.iterdir()))
    fresh, _ = embedder.embed(gallery.paths, "fresh", SilentReporter())
    np.testing.assert_allclose(rows(gallery), fresh.rows, atol=1e-5)


def test_a_large_gallery_is_kept_part_by_part(
    photos: Path, made: list[int], calr_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also small files are put together, and none of it changes a row."""
    (photos / "2-broken.png").unlink()
    whole = rows(open_gallery(embedder_of(), photos, SilentReporter()))
    shutil.rmtree(calr_home / "galleries")
    monkeypatch.setattr(kept_features, "PART_ROWS", 1)
    monkeypatch.setattr(feature_store, "_SMALL_PARTS", 2)
    for files in (3, 2):
        np.testing.assert_allclose(
            rows(open_gallery(embedder_of(), photos, SilentReporter())), whole, atol=1e-5
        )
        assert len(list((calr_home / "galleries").glob("*/*"))) == files
    assert made == [4, 1, 1, 1, 1]


def test_an_interruption_loses_no_part_that_was_done(
    photos: Path, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "2-broken.png").unlink()
    monkeypatch.setattr(kept_features, "PART_ROWS", 1)
    rows_of = Embedder.rows_of

    def interrupted(self: Embedder, images: list[str], *rest: object, **more: object) -> object:
        if images == [str(photos / "2.png")]:
            raise KeyboardInterrupt
        return rows_of(self, images, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Embedder, "rows_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_gallery(embedder_of(), photos, SilentReporter())
    monkeypatch.setattr(Embedder, "rows_of", rows_of)
    open_gallery(embedder_of(), photos, SilentReporter())
    assert made == [1, 1, 1, 1]


@pytest.mark.parametrize("damage", ["a flipped byte", "cut short", "nothing in it", "not to be read"])
def test_damage_is_mended(photos: Path, made: list[int], calr_home: Path, damage: str) -> None:
    (photos / "2-broken.png").unlink()
    before = rows(open_gallery(embedder_of(), photos, SilentReporter()))
    (kept,) = (calr_home / "galleries").glob("*/*")
    content = bytearray(kept.read_bytes())
    if damage == "a flipped byte":
        content[len(content) // 2] ^= 4
    kept.write_bytes(
        content[:-40] if damage == "cut short" else b"" if damage == "nothing in it" else content
    )
    if damage == "not to be read":
        kept.unlink()
        kept.mkdir()
    for _ in range(2):
        np.testing.assert_allclose(
            rows(open_gallery(embedder_of(), photos, SilentReporter())), before, atol=1e-5
        )
    assert made == [4, 4]


def test_a_home_that_cannot_be_written_stops_nothing(
    photos: Path, calr_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calr_home.write_text("a file in the place of the folder")
    heard = Heard()
    gallery = open_gallery(embedder_of(), photos, heard)
    assert len(rows(gallery)) == 4
    (line,) = (line for line in heard.warnings if "cannot be kept" in line)
    assert line.startswith(f"the features of the gallery cannot be kept ({calr_home}")
    monkeypatch.setattr(kept_features, "PART_ROWS", 1)  # of which each fits
    with pytest.raises(MemoryLimitError, match="features that cannot be kept would take"):
        open_gallery(embedder_of(memory_limit_gb=7e-6), photos, SilentReporter())


def test_a_full_disk_stops_nothing(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    heard = Heard()
    with monkeypatch.context() as patched:
        patched.setattr(np, "save", full)
        assert len(rows(open_gallery(embedder_of(), photos, heard))) == 4
    assert [line for line in heard.warnings if "the disk or your share of it is full" in line]


def test_what_was_used_longest_ago_goes(
    photos: Path, calr_home: Path, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "2-broken.png").unlink()
    open_gallery(embedder_of(0), photos, SilentReporter())
    (first,) = (calr_home / "galleries").glob("*/*")
    os.utime(first, (1, 1))
    open_gallery(embedder_of(1), photos, SilentReporter())
    assert len(made) == 2
    monkeypatch.setattr(feature_store, "STORE_BYTES", 2.5 * first.stat().st_size)
    open_gallery(embedder_of(0), photos, SilentReporter())  # used again
    open_gallery(embedder_of(2), photos, SilentReporter())
    assert len(list((calr_home / "galleries").glob("*/*"))) == 2
    open_gallery(embedder_of(0), photos, SilentReporter())
    assert len(made) == 3
    open_gallery(embedder_of(1), photos, SilentReporter())
    assert len(made) == 4


@pytest.mark.parametrize("change", ["gone", "come", "another"])
def test_images_that_change_meanwhile(
    photos: Path, made: list[int], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Rows must never get the names of other images; the next search finds nothing half right either."""
    shutil.copy(photos / "0.png", photos / "3-copy.png")  # of the same content: a digest does not tell them
    digests = kept_features.content_digests

    def then_changed(paths: list[str], reporter: Reporter) -> list[str]:
        if change == "come":
            (photos / "0.png").rename(photos / "away")
        found = digests(paths, reporter)
        if change == "come":
            (photos / "away").rename(photos / "0.png")
        elif change == "gone":
            (photos / "3-copy.png").unlink()
        else:
            shutil.copy(photos / "1.png", photos / "0.png")
        return found

    monkeypatch.setattr(kept_features, "content_digests", then_changed)
    heard = Heard()
    gallery = open_gallery(embedder_of(), photos, heard)
    lost, why = {
        "gone": ("3-copy.png", "no such file"),
        "come": ("0.png", "has changed while the gallery was read"),
        "another": ("0.png", "has changed while the gallery was read"),
    }[change]
    assert lost not in names(gallery)
    assert len(gallery) == 4
    assert f"{photos / lost}: {why}: left out" in heard.warnings
    monkeypatch.setattr(kept_features, "content_digests", digests)
    after = open_gallery(embedder_of(), photos, SilentReporter())
    fresh, _ = embedder_of().embed(after.paths, "fresh", SilentReporter())
    np.testing.assert_allclose(rows(after), fresh.rows, atol=1e-5)


def test_several_galleries_are_one(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    write_image(tmp_path / "more" / "9.png", 9)
    embedder = embedder_of()
    features, _ = embedder.embed([photos / "3.png", photos / "0.png"])
    write_features(tmp_path / "f.npz", features)
    sources = [str(source) for source in (tmp_path / "more", tmp_path / "f.npz", photos, tmp_path / "more")]
    gallery = searching.open_gallery(embedder, sources, SilentReporter())
    found = [str(photos / "3.png"), str(photos / "0.png"), str(tmp_path / "more" / "9.png")]
    assert list(gallery.paths) == [*found, *(str(photos / f"{n}.png") for n in range(4))]
    fresh, _ = embedder.embed(gallery.paths)
    np.testing.assert_allclose(rows(gallery), fresh.rows, atol=1e-5)


@pytest.mark.parametrize("name", ["f.npz", "f.csv", "f.parquet"])
def test_queries_are_computed_as_the_gallery_was(
    photos: Path, tmp_path: Path, made: list[int], name: str
) -> None:
    """Of a file made in bf16 an image's similarity to itself is 1, on a machine that takes fp32 by itself."""
    server, laptop = embedder_of().computing_in("bf16"), embedder_of()
    features, _ = server.embed([photos / f"{n}.png" for n in range(4)])
    write_features(tmp_path / name, features)
    heard = Heard()
    gallery = open_gallery(laptop, tmp_path / name, heard)
    assert heard.notes == [f"{tmp_path / name} was made in bf16: the queries are computed in that, too"]
    queries, _ = gallery.embedder.embed(photos / "1.png")
    assert queries.precision == "bf16"
    (answer,) = search(gallery, queries, 1, None)
    assert answer["results"][0]["path"] == str(photos / "1.png")
    assert answer["results"][0]["similarity"] == pytest.approx(1, abs=1e-4)
    assert made == [4, 1]  # a table's features are not made again, either
    assert laptop.precision == "fp32"


def test_precision_that_is_not_known_or_not_one(photos: Path, tmp_path: Path) -> None:
    embedder = embedder_of()
    features, _ = embedder.embed([photos / "1.png"])
    np.savez(tmp_path / "old.npz", paths=["1.png"], features=features.rows, model=embedder.key)
    heard = Heard()
    assert open_gallery(embedder, tmp_path / "old.npz", heard).paths == ("1.png",)
    (note,) = heard.notes
    assert note.startswith(f"{tmp_path}/old.npz does not say its precision: taken as fp32; ")
    write_features(tmp_path / "half.npz", replace(features, precision="fp16"))
    open_gallery(embedder, tmp_path / "half.npz", heard)
    assert heard.notes[1].startswith(f"{tmp_path}/half.npz says 'fp16' as its precision: taken as fp32; ")
    write_features(tmp_path / "a.npz", features)
    write_features(tmp_path / "b.npz", replace(features, precision="bf16"))
    with pytest.raises(DataError, match=r"a\.npz in fp32 and .*b\.npz in bf16: .*Make one of them again$"):
        searching.open_gallery(embedder, [str(tmp_path / "a.npz"), str(tmp_path / "b.npz")], heard)


def test_a_table_of_another_model_is_a_table_of_images(photos: Path, tmp_path: Path, made: list[int]) -> None:
    features, _ = embedder_of(1).embed([photos / "1.png", photos / "0.png"])
    write_features(tmp_path / "f.csv", features)
    heard = Heard()
    gallery = open_gallery(embedder_of(), tmp_path / "f.csv", heard)
    assert gallery.paths == features.paths
    assert made == [2, 2]
    made_by = "made by another model, or with another input size"
    assert heard.notes[0] == f"{tmp_path}/f.csv was {made_by}: its images are embedded anew"


def test_features_of_another_model(tmp_path: Path) -> None:
    embedder = embedder_of()
    file = str(tmp_path / "f.npz")
    for features, line in (
        (Features(("x",), unit_features(0, 1, 512), "another", "fp32"), "was made by another model"),
        (Features(("x",), unit_features(0, 1, 8), embedder.key, "fp32"), "has 8 dimensions, the model 512"),
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
    (known,) = search(gallery, queries, 3, 0.9999)
    assert (known["unknown"], known["results"][0]["path"]) == (False, str(photos / "1.png"))
    assert [found["same"] for found in known["results"]][:1] == [True]
    (unknown,) = search(gallery, queries, 3, 1.5)
    assert unknown["unknown"] is True
    (undecided,) = search(gallery, queries, 30, None)
    assert undecided["unknown"] is None
    assert len(undecided["results"]) == 4


def test_many_unreadable_images_are_counted(tmp_path: Path) -> None:
    write_image(tmp_path / "fine.png", 0)
    heard = Heard()
    paths = [*(f"no/{n}.png" for n in range(SHOWN + 5)), str(tmp_path / "fine.png")]
    features, problems = embedder_of().embed(paths, "images", heard)
    assert (features.paths, len(problems)) == ((str(tmp_path / "fine.png"),), SHOWN + 5)
    assert heard.warnings[0] == "no/0.png: no such file: left out"
    assert heard.warnings[-1] == "and 5 more images that cannot be read"
    with pytest.raises(DataError, match=r"^no/0\.png: no such file \(and 1 more\)\. There is no image"):
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
