from __future__ import annotations

import json
import os
import re
import shutil
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from calr_cli.data.manifest import manifest_path
from calr_cli.errors import ConfigError, DataError
from calr_cli.events import SilentReporter
from calr_cli.prepare.card import read_card
from calr_cli.prepare.datasets import LAYOUTS
from calr_cli.prepare.prepared import load_dataset
from calr_cli.prepare.published import (
    prepare_archives,
    prepare_dataset,
    prepare_datasets,
    remember_root,
    remembered_root,
)
from tests.support.heard import Heard
from tests.support.made_up import FLAT, make_layout, write_image

VERSIONS = [*((name, "V1") for name in FLAT), ("msmt17", "V1"), ("msmt17", "V2"), ("msmt17", "Market-like")]


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_every_layout_is_prepared_and_loaded(name: str, version: str, tmp_path: Path) -> None:
    folder = make_layout(name, tmp_path, version=version)
    card = prepare_dataset(name, tmp_path, Heard())
    assert card.root == folder
    assert card.version == version or name != "msmt17"
    assert {split: vars(counts) for split, counts in card.splits.items()} == {
        "train": {"images": 48, "ids": 8, "cameras": 3},
        "query": {"images": 12, "ids": 4, "cameras": 3},
        "gallery": {"images": 12, "ids": 4, "cameras": 3},
    }
    assert card.images_per_camera == {"train": (16, 16, 16), "query": (4, 4, 4), "gallery": (4, 4, 4)}
    assert (card.sizes.width, card.sizes.height) == ((16, 16, 16), (32, 32, 32))
    assert (card.distractors, card.junk, card.official) == (0, 0, LAYOUTS[name].official)
    dataset = load_dataset(name)
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (48, 12, 12)
    assert dataset.num_cameras == 3
    assert dataset.train.has_identities
    assert list(dataset.train.digests) == sorted(dataset.train.digests)
    assert len(set(dataset.train.digests)) == 48
    assert all((dataset.train.root / path).is_file() for path in dataset.gallery.paths)


def test_names_do_not_decide_the_order(tmp_path: Path) -> None:
    """Identities stand first in the names: an order by name would leak them into the labels."""
    folder = make_layout("market1501", tmp_path, identities=4)
    prepare_dataset("market", tmp_path, Heard())
    before = load_dataset("market").train
    train = folder / "bounding_box_train"
    for path in list(train.iterdir()):  # identities 1..4 become 4..1
        path.rename(train / f"x{5 - int(path.name[:4]):04d}{path.name[4:]}")
    for path in list(train.iterdir()):
        path.rename(train / path.name[1:])
    prepare_dataset("market", tmp_path, Heard())
    after = load_dataset("market").train
    assert before.paths != after.paths
    assert before.digests == after.digests
    assert (before.pids == 5 - after.pids).all()


def test_all_datasets_under_a_root(tmp_path: Path, calr_home: Path) -> None:
    make_layout("veri", tmp_path)
    make_layout("msmt17", tmp_path)
    make_layout("msmt17", tmp_path, version="V2")
    heard = Heard()
    cards = prepare_datasets(tmp_path, heard)
    assert [(card.name, card.version) for card in cards] == [("msmt17", "V1"), ("veri", "VeRi-776")]
    assert heard.notes == [
        f"Market-1501 is not under {tmp_path}; open to all for research; "
        "calr prepare-data --download fetches it",
        f"DukeMTMC-reID is not under {tmp_path}; withdrawn by its authors in 2019, so only a copy "
        "that you have can be used; calr prepare-data --archive FILE takes its archive",
    ]
    assert heard.warnings[0] == (
        f"MSMT17: taking V1 in {tmp_path}/msmt17/MSMT17_V1, though there is also "
        f"{tmp_path}/msmt17/MSMT17_V2 (V2); to take another, give its folder as --root"
    )
    assert remembered_root() == tmp_path
    json.dumps([card.as_json() for card in cards])


def test_differences_from_official_counts_give_both_numbers(tmp_path: Path) -> None:
    make_layout("dukemtmcreid", tmp_path)
    heard = Heard()
    card = prepare_dataset("duke", tmp_path, heard)
    assert list(card.warnings) == heard.warnings
    assert heard.warnings == [
        "DukeMTMC-reID: train has 48 images of 8 identities, officially 16,522 of 702",
        "DukeMTMC-reID: query has 12 images of 4 identities, officially 2,228 of 702",
        "DukeMTMC-reID: gallery has 12 images of 4 identities, officially 17,661 of 1,110",
        "DukeMTMC-reID: training images per camera differ (official count): camid 0 has 16 (2,809), "
        "camid 1 has 16 (3,009), camid 2 has 16 (1,088), camid 3 has 0 (1,395), camid 4 has 0 (1,685), "
        "camid 5 has 0 (3,700), camid 6 has 0 (1,330), camid 7 has 0 (1,506)",
    ]


def test_unreadable_images_are_named_and_left_out(tmp_path: Path) -> None:
    folder = make_layout("veri", tmp_path)
    train = sorted((folder / "image_train").iterdir())
    train[0].write_bytes(b"")
    train[1].write_text("text")
    train[2].write_bytes(train[2].read_bytes()[:300])
    heard = Heard()
    card = prepare_dataset("veri", tmp_path, heard)
    names = [f"image_train/{path.name}" for path in train[:3]]
    assert [text.split(" (")[0] for text in card.unreadable] == names
    assert heard.warnings[0] == f"VeRi-776: left out, cannot be read: {names[0]} (empty file)"
    assert heard.warnings[1] == f"VeRi-776: left out, cannot be read: {names[1]} (not an image)"
    assert card.splits["train"].images == 45
    assert not set(names) & set(load_dataset("veri").train.paths)
    for path in train[3:16]:
        path.write_bytes(b"")
    heard = Heard()
    card = prepare_dataset("veri", tmp_path, heard)
    assert len(card.unreadable) == 16
    assert heard.warnings[10] == (
        f"VeRi-776: left out 6 more, all named in {manifest_path('veri').parent / 'card.json'}"
    )


def test_nothing_readable(tmp_path: Path) -> None:
    folder = make_layout("veri", tmp_path, identities=1, images_per_identity=3)
    for path in (folder / "image_train").iterdir():
        path.write_bytes(b"")
    write_image(folder / "image_test" / "0009_c001_00000001_0.jpg", 1)
    with pytest.raises(
        DataError, match=rf"VeRi-776: no training image in {folder} can be read: image_train/"
    ):
        prepare_dataset("veri", tmp_path, Heard())
    assert not manifest_path("veri").exists()


def test_unchanged_images_are_not_read_again(tmp_path: Path) -> None:
    folder = make_layout("veri", tmp_path)
    first, again, edited, touched, grown = (Heard() for _ in range(5))
    card = prepare_dataset("veri", tmp_path, first)
    manifest = card.manifest.read_bytes()
    assert first.steps == ["Checking VeRi-776: 72 images"]
    assert prepare_dataset("veri", tmp_path, again) == card == read_card("veri")
    assert again.steps == []
    assert again.warnings == first.warnings
    card.manifest.write_text("edited by hand into nonsense")
    assert prepare_dataset("veri", tmp_path, edited) == card
    assert edited.steps == first.steps
    assert card.manifest.read_bytes() == manifest
    image = next((folder / "image_train").iterdir())
    os.utime(image, ns=(1, 1))
    assert prepare_dataset("veri", tmp_path, touched) == card
    assert touched.steps == first.steps
    write_image(folder / "image_train" / "0001_c001_99999999_0.jpg", 1, seed=99)
    assert prepare_dataset("veri", tmp_path, grown).splits["train"].images == 49


def test_verify_reads_them_again_all_the_same(tmp_path: Path) -> None:
    """An image may go bad on the disk without a change of its time and size."""
    folder = make_layout("veri", tmp_path)
    prepare_datasets(tmp_path, Heard())
    heard = Heard()
    prepare_datasets(tmp_path, heard, verify=True)
    assert heard.steps == ["Checking VeRi-776: 72 images"]
    assert heard.notes[-1] == "VeRi-776: every image was read and can be decoded"
    image = next((folder / "image_train").iterdir())
    status = image.stat()
    image.write_bytes(bytes(status.st_size))
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    (unnoticed,) = prepare_datasets(tmp_path, Heard())
    heard = Heard()
    (card,) = prepare_datasets(tmp_path, heard, verify=True)
    assert (unnoticed.unreadable, card.unreadable) == ((), (f"image_train/{image.name} (not an image)",))
    assert not any(note.endswith("can be decoded") for note in heard.notes)


@pytest.mark.parametrize("damage", ["{", "[]", '{"signature": 1}', ""])
def test_damaged_card_is_written_anew(damage: str, tmp_path: Path) -> None:
    make_layout("veri", tmp_path, identities=2)
    card = prepare_dataset("veri", tmp_path, Heard())
    path = card.manifest.parent / "card.json"
    path.write_text(damage)
    assert read_card("veri") is None
    assert prepare_dataset("veri", tmp_path, Heard()) == card == read_card("veri")


def test_nothing_there(tmp_path: Path, calr_home: Path) -> None:
    with pytest.raises(DataError) as error:
        prepare_datasets(tmp_path, Heard())
    assert error.value.lines() == [
        f"None of the datasets is under {tmp_path}; looked for folders and archives of "
        "Market-1501 (bounding_box_train), DukeMTMC-reID (bounding_box_train), "
        "MSMT17 (train or bounding_box_train or mask_train_v2), VeRi-776 (image_train). "
        "Give the folder that holds them: --root DIR; for your own images: --images DIR --pattern REGEX"
    ]
    with pytest.raises(
        DataError, match=rf"No VeRi-776 is under {tmp_path}; .*It is given on request by its owners, ask at"
    ):
        prepare_dataset("veri", tmp_path, Heard())
    with pytest.raises(ConfigError, match="There is no dataset 'mars'"):
        prepare_dataset("mars", tmp_path, Heard())
    assert not calr_home.exists()


def test_a_folder_that_only_looks_like_a_dataset(tmp_path: Path) -> None:
    """One's own shop once passed for MSMT17, exit code 0."""
    (tmp_path / "root").mkdir()
    shop = make_layout("msmt17", tmp_path / "made", version="Market-like").rename(
        tmp_path / "root" / "my shop"
    )
    line = (
        f"{shop} has folders and file names like those of MSMT17, but neither its name nor its number of "
        f"images. If they are your own: --images '{shop}' --pattern REGEX --split 0.5, or a table with their "
        "splits, --csv FILE; if it is a part of MSMT17: call the folder msmt17"
    )
    with pytest.raises(DataError) as error:
        prepare_datasets(tmp_path / "root", Heard())
    assert error.value.lines()[0].startswith("None of the datasets is under ")
    assert error.value.lines()[1:] == [line]
    with pytest.raises(DataError) as error:
        prepare_dataset("msmt17", tmp_path / "root", Heard())
    assert error.value.lines()[0] == line
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path / "root")
    with pytest.raises(DataError, match="photos/my shop has folders and file names like those of MSMT17"):
        prepare_archives([Path(archive)], tmp_path / "unpacked", Heard())
    make_layout("veri", tmp_path / "root")
    heard = Heard()
    assert [card.name for card in prepare_datasets(tmp_path / "root", heard)] == ["veri"]
    assert heard.notes[-1] == line


def test_one_broken_dataset_does_not_keep_the_others_out(tmp_path: Path) -> None:
    make_layout("veri", tmp_path)
    shutil.rmtree(make_layout("market1501", tmp_path) / "query")
    with pytest.raises(DataError) as error:
        prepare_datasets(tmp_path, Heard())
    assert len(error.value.problems) == 1
    assert error.value.problems[0].startswith(
        f"{tmp_path}/market1501/Market-1501-v15.09.15 has no folder query"
    )
    assert len(load_dataset("veri").train) == 48


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_archives_beside_are_unpacked(kind: str, tmp_path: Path) -> None:
    make_layout("market1501", tmp_path / "made")
    root = tmp_path / "data"
    root.mkdir()
    archive = shutil.make_archive(str(root / "Market-1501-v15.09.15"), kind, tmp_path / "made" / "market1501")
    (root / "duke-notes.zip").write_bytes(b"no archive")  # its name says duke: a problem of its own
    with pytest.raises(DataError) as error:
        prepare_datasets(root, Heard())
    assert re.search(r"duke-notes.zip is damaged", str(error.value))
    (root / "duke-notes.zip").unlink()
    heard = Heard()
    assert [card.root for card in prepare_datasets(root, heard)] == [root / "Market-1501-v15.09.15"]
    Path(archive).unlink()
    shutil.rmtree(root / "Market-1501-v15.09.15")
    with pytest.raises(
        DataError, match=r"The images of market1501 are no longer in .*Market-1501-v15.09.15. Run"
    ):
        load_dataset("market1501")


def test_archive_whose_folder_is_something_else(tmp_path: Path) -> None:
    make_layout("veri", tmp_path / "made")
    root = tmp_path / "data"
    (root / "veri").mkdir(parents=True)
    shutil.make_archive(str(root / "veri"), "zip", tmp_path / "made")
    with pytest.raises(
        DataError, match=r"veri.zip holds VeRi-776, but .*/veri does not. Move that folder away"
    ):
        prepare_dataset("veri", root, Heard())


def test_archives_of_any_name(tmp_path: Path) -> None:
    """Several sets in one, nested or not, from elsewhere; those under the root already are left alone."""
    for name in ("veri", "dukemtmcreid"):
        make_layout(name, tmp_path / "made")
    make_layout("msmt17", tmp_path / "made2")
    market = make_layout("market1501", tmp_path / "root")
    packed = tmp_path / "packed"
    shutil.make_archive(str(tmp_path / "made" / "x"), "gztar", tmp_path / "made2")
    Path(shutil.make_archive(str(packed), "zip", tmp_path / "made")).rename(packed)
    heard = Heard()
    cards = prepare_archives([packed], tmp_path / "root", heard)
    target = tmp_path / "root" / "packed-unpacked"
    assert [(card.name, card.root) for card in cards] == [
        ("dukemtmcreid", target / "dukemtmcreid/DukeMTMC-reID"),
        ("msmt17", target / "x/msmt17/MSMT17_V1"),
        ("veri", target / "veri/VeRi"),
    ]
    titles = "DukeMTMC-reID (DukeMTMC-reID), VeRi-776 (VeRi-776), MSMT17 (V1)"
    assert heard.notes == [f"packed holds {titles}, unpacked in {target}"]
    assert remembered_root() == tmp_path / "root"
    assert prepare_archives([packed], tmp_path / "root", heard) == cards
    assert [step.split(":")[0] for step in heard.steps if "packed" in step] == [
        "Reading packed",
        "Unpacking packed",
    ]
    packed.unlink()
    assert [card.name for card in prepare_datasets(tmp_path / "root", Heard())] == list(LAYOUTS)
    assert load_dataset("market").train.root == market


def test_archives_that_are_of_no_use(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "made").mkdir()
    write_image(tmp_path / "made" / "cat.jpg", 1)
    holiday = Path(shutil.make_archive(str(tmp_path / "holiday"), "zip", tmp_path / "made"))
    (tmp_path / "page.zip").write_text("<!DOCTYPE html><html>quota exceeded</html>")
    for archive, problem in {
        tmp_path / "absent.zip": "There is no file ",
        tmp_path / "made": "There is no file ",
        tmp_path / "page.zip": "page.zip is damaged, or neither a zip nor a tar",
        holiday: "holiday.zip holds no folder bounding_box_train, train, mask_train_v2, image_train of a",
    }.items():
        with pytest.raises(DataError, match=re.escape(problem)):
            prepare_archives([archive], root, Heard())
        assert [path.name for path in root.iterdir()] == []
    holiday.rename(root / "holiday.zip")
    with pytest.raises(DataError, match=rf"to be given as --archive FILE: {root}/holiday.zip. Give"):
        prepare_datasets(root, Heard())


def _prepare_in_process(root: Path, home: str, start: Barrier, results: SimpleQueue) -> None:
    os.environ["CALR_HOME"] = home
    start.wait()
    (card,) = prepare_datasets(root, SilentReporter())
    results.put(card)


def test_processes_at_once(tmp_path: Path, calr_home: Path) -> None:
    """Two of the same root, and one of another: manifest and card are of one of them, and whole."""
    make_layout("veri", tmp_path / "one", identities=30)
    make_layout("veri", tmp_path / "two", identities=40)
    context = get_context("spawn")
    start, results = context.Barrier(3), context.SimpleQueue()
    roots = [tmp_path / "one", tmp_path / "one", tmp_path / "two"]
    arguments = [(root, str(calr_home), start, results) for root in roots]
    processes = [context.Process(target=_prepare_in_process, args=each) for each in arguments]
    for process in processes:
        process.start()
    cards = [results.get() for _ in processes]
    for process in processes:
        process.join()
    last = read_card("veri")
    assert last is not None
    assert last in cards
    assert len(load_dataset("veri").train) == last.splits["train"].images
    assert load_dataset("veri").train.root == last.root
    assert sorted(path.name for path in last.manifest.parent.iterdir() if path.suffix != ".lock") == [
        "card.json",
        "files.csv",
        "manifest.csv",
    ]


def test_a_card_never_lies_beside_the_manifest_of_another_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two, the dataset counts as not prepared."""
    make_layout("veri", tmp_path / "one")
    make_layout("veri", tmp_path / "two")
    prepare_datasets(tmp_path / "one", Heard())

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("calr_cli.prepare.check._write_card", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare_datasets(tmp_path / "two", Heard())
    with pytest.raises(DataError, match="veri is not prepared"):
        load_dataset("veri")


def test_remembered_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert remembered_root() is None
    monkeypatch.chdir(tmp_path)
    remember_root(Path("data"))
    assert remembered_root() == tmp_path / "data"


@pytest.mark.real
def test_real_market(shared: Path) -> None:
    heard = Heard()
    card = prepare_dataset("market", shared / "data", heard)
    assert [vars(counts) for counts in card.splits.values()] == [
        {"images": 6504, "ids": 375, "cameras": 6},
        {"images": 749, "ids": 175, "cameras": 6},
        {"images": 2324, "ids": 173, "cameras": 6},
    ]
    assert card.images_per_camera["train"] == (1024, 865, 1368, 486, 1156, 1605)
    assert card.unreadable == ()
    assert (
        heard.warnings[0] == "Market-1501: train has 6,504 images of 375 identities, officially 12,936 of 751"
    )
