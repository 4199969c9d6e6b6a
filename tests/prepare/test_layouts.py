from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calr_cli.errors import DataError
from calr_cli.prepare.datasets import LAYOUTS
from calr_cli.prepare.datasets.layout import FlatVersion
from calr_cli.prepare.datasets.msmt17 import ListVersion
from tests.support.made_up import FLAT, make_layout, write_image


@pytest.mark.parametrize(
    ("name", "file_name", "ids"),
    [
        ("market1501", "0001_c1s1_001051_00.jpg", (1, 0)),
        ("market1501", "-1_c6s4_001051_00.jpg", (-1, 5)),
        ("market1501", "0000_c3s2_001051_00.jpg", (0, 2)),
        ("market1501", "0001_c7s1_001051_00.jpg", None),  # there are six cameras
        ("market1501", "0001_c0s1_001051_00.jpg", None),
        ("market1501", "0005_c2_f0046985.jpg", None),  # DukeMTMC-reID
        ("market1501", "a0001_c1s1_001051_00.jpg", None),
        ("market1501", "99999999999999999999_c1s1_001051_00.jpg", None),
        ("dukemtmcreid", "0005_c2_f0046985.jpg", (5, 1)),
        ("dukemtmcreid", "0001_c1s1_001051_00.jpg", None),
        ("veri", "0001_c001_00016450_0.jpg", (1, 0)),
        ("veri", "0776_c020_00016450_0.jpg", (776, 19)),
        ("veri", "0776_c021_00016450_0.jpg", None),
        ("msmt17", "0000_c15_0001.jpg", (0, 14)),
        ("msmt17", "0000_c2_f0046985.jpg", None),  # DukeMTMC-reID
    ],
)
def test_file_names(name: str, file_name: str, ids: tuple[int, int] | None) -> None:
    version = next(v for v in LAYOUTS[name].versions if isinstance(v, FlatVersion))
    assert version.parse(file_name) == ids


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_official_counts_agree_with_themselves(layout) -> None:
    """A slip of the pen in a table of 49 numbers would warn every user for ever."""
    assert sum(layout.official.train_per_camera) == layout.official.images[0]
    for version in layout.versions:
        if isinstance(version, FlatVersion):
            assert version.num_cameras == len(layout.official.train_per_camera)
            assert version.parse(version.example) is not None


def test_veri_is_not_veri_wild() -> None:
    mark = LAYOUTS["veri"].mark
    assert all(mark.search(name) for name in ("VeRi", "veri776", "VeRi_with_plate.zip", "my-veri"))
    assert not any(mark.search(name) for name in ("VERI-Wild", "veriwild", "verification", "overing"))


@pytest.mark.parametrize("name", FLAT)
def test_flat_layout_lists_every_image(name: str, tmp_path: Path) -> None:
    folder = make_layout(name, tmp_path, identities=2, images_per_identity=4, cameras=2)
    listing = LAYOUTS[name].versions[0].read(folder)
    assert listing.warnings == ()
    assert {(e.split, e.pid, e.camid) for e in listing.entries} == {
        *[("train", pid, camid) for pid in (1, 2) for camid in (0, 1)],
        *[(split, pid, camid) for split in ("query", "gallery") for pid in (3, 4) for camid in (0, 1)],
    }
    assert len(listing.entries) == 8 + 4 + 4
    assert all((folder / entry.path).is_file() for entry in listing.entries)


def test_market_drops_junk_and_keeps_distractors(tmp_path: Path) -> None:
    folder = make_layout("market1501", tmp_path, identities=2, images_per_identity=4)
    write_image(folder / "bounding_box_test" / "-1_c1s1_000001_00.jpg", 90)
    write_image(folder / "bounding_box_test" / "0000_c1s1_000001_00.jpg", 91)
    listing = LAYOUTS["market1501"].versions[0].read(folder)
    assert sorted(e.pid for e in listing.entries if e.split == "gallery") == [0, 3, 4]
    assert (listing.junk, listing.warnings) == (1, ())


@given(
    st.sampled_from([v for one in LAYOUTS.values() for v in one.versions if isinstance(v, FlatVersion)]),
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=40)
        | st.from_regex(r"-?[0-9٣]{1,20}_c-?[0-9²]{1,20}(s[0-9]{1,3})?_[a-z\n]?", fullmatch=True),
        max_size=5,
    ),
)
def test_any_file_name_is_understood_or_left_out(version: FlatVersion, names: list[str]) -> None:
    """Digits of other scripts, control characters, numbers of any length."""
    folder = Path(os.environ["CALR_HOME"]).parent / "fuzz"
    shutil.rmtree(folder, ignore_errors=True)
    for split in version.folders:
        (folder / split).mkdir(parents=True)
        (folder / split / version.example).touch()
    written = {f"{name}.jpg" for name in names} - {version.example}
    for name in written:
        (folder / version.folders[0] / name).touch()
    listing = version.read(folder)
    entries = [entry for entry in listing.entries if entry.split == "train"]
    assert all(0 <= e.camid < version.num_cameras and 0 <= e.pid < 10**9 for e in entries)
    assert {entry.path.partition("/")[2] for entry in entries} <= written | {version.example}
    left = sum(int(warning.split(": ")[1].split()[0]) for warning in listing.warnings)
    hidden = sum(name.startswith((".", "__MACOSX")) for name in written)
    assert len(entries) + left + listing.junk + hidden == len(written) + 1


PIECES = st.lists(st.sampled_from([b"0000/a.jpg", b"1", b" ", b"\n", b"\t", b"-1"]))


@given(st.binary(max_size=80) | PIECES.map(b"".join))
def test_any_list_of_msmt17_is_read_or_refused(content: bytes) -> None:
    folder = Path(os.environ["CALR_HOME"]).parent / "fuzz"
    if not folder.is_dir():
        make_layout("msmt17", folder, identities=1, images_per_identity=2, cameras=1)
    query = folder / "msmt17/MSMT17_V1/list_query.txt"
    query.write_bytes(content)
    with suppress(DataError):  # any other exception fails this test
        ListVersion("V1", ("train", "test")).read(query.parent)


def test_unknown_names_are_counted_and_named_and_rubbish_is_ignored(tmp_path: Path) -> None:
    folder = make_layout("veri", tmp_path)
    images = folder / "image_train"
    for name in ("cat.jpg", "dog.png"):
        write_image(images / name, 1)
    for rubbish in ("Thumbs.db", "._0001_c001_00000000_0.jpg", "notes.txt", ".hidden.jpg"):
        (images / rubbish).write_text("rubbish")
    (images / "__MACOSX").mkdir()
    write_image(images / "__MACOSX" / "0001_c001_00000077_0.jpg", 1)
    listing = LAYOUTS["veri"].versions[0].read(folder)
    assert listing.warnings == (
        f"{images}: 2 image(s) left out, names not as 0001_c001_00016450_0.jpg: cat.jpg, dog.png",
    )
    assert sum(e.split == "train" for e in listing.entries) == 48


def test_a_camera_that_the_dataset_does_not_have(tmp_path: Path) -> None:
    """Its name is as it should be, and was called another."""
    folder = make_layout("market1501", tmp_path)
    write_image(folder / "query" / "0001_c7s1_001051_00.jpg", 1)
    write_image(folder / "query" / "cat.jpg", 1)
    assert LAYOUTS["market1501"].versions[0].read(folder).warnings == (
        f"{folder / 'query'}: 1 image(s) left out, names not as 0001_c1s1_001051_00.jpg: cat.jpg",
        f"{folder / 'query'}: 1 image(s) left out, no camera 1 to 6 in the name: 0001_c7s1_001051_00.jpg",
    )


@pytest.mark.parametrize("ending", ["", ".txt.txt", ".TXT"])
def test_lists_of_msmt17_with_another_ending(ending: str, tmp_path: Path) -> None:
    """Where endings are not shown, they get lost or doubled; that is no bad copy."""
    folder = make_layout("msmt17", tmp_path)
    version = ListVersion("V1", ("train", "test"))
    expected = version.read(folder)
    for path in folder.glob("*.txt"):
        path.rename(path.with_name(path.stem + ending))
    assert version.recognises(folder)
    assert version.read(folder) == expected


def test_no_name_understood(tmp_path: Path) -> None:
    folder = make_layout("market1501", tmp_path)
    shutil.rmtree(folder / "query")
    (folder / "query").mkdir()
    read = LAYOUTS["market1501"].versions[0].read
    with pytest.raises(DataError) as error:
        read(folder)
    assert error.value.problems == (
        f"{folder / 'query'} has no image with a name such as 0001_c1s1_001051_00.jpg "
        "and a camera from 1 to 6",
    )
    write_image(folder / "query" / "cat.jpg", 1)
    with pytest.raises(DataError) as error:
        read(folder)
    assert error.value.problems == (
        f"{folder / 'query'} has none of its 1 images (as cat.jpg) with a name such as "
        "0001_c1s1_001051_00.jpg and a camera from 1 to 6",
    )


def test_missing_split_folder(tmp_path: Path) -> None:
    folder = make_layout("dukemtmcreid", tmp_path)
    shutil.rmtree(folder / "query")
    with pytest.raises(DataError, match=r"has no folder query. Unpack the dataset again, as a whole"):
        LAYOUTS["dukemtmcreid"].versions[0].read(folder)


@pytest.mark.parametrize("name", ["V1", "V2"])
def test_msmt17_lists(name: str, tmp_path: Path) -> None:
    folder = make_layout("msmt17", tmp_path, identities=2, images_per_identity=4, cameras=2, version=name)
    version = next(v for v in LAYOUTS["msmt17"].versions if v.name == name)
    listing = version.read(folder)
    assert listing.warnings == ()
    train = sorted((e.pid, e.camid) for e in listing.entries if e.split == "train")
    assert train == [(pid, camid) for pid in (0, 1) for camid in (0, 0, 1, 1)]  # train + val
    assert {e.pid for e in listing.entries if e.split == "gallery"} == {0, 1}  # counted from 0 again
    assert len(listing.entries) == 8 + 4 + 4
    assert all((folder / e.path).is_file() for e in listing.entries)


def test_msmt17_traps(tmp_path: Path) -> None:
    """Circulating copies lack lists, or a quarter of the gallery."""
    folder = make_layout("msmt17", tmp_path, identities=2, images_per_identity=4, cameras=2)
    version = ListVersion("V1", ("train", "test"))
    gallery = (folder / "list_gallery.txt").read_text()
    gone = gallery.split()[0]
    (folder / "test" / gone).unlink()
    with (folder / "list_gallery.txt").open("a") as file:
        file.write("../train/x.jpg 1\n")
    with (folder / "list_query.txt").open("a") as file:
        file.write("0000/odd.jpg 1\n")
    write_image(folder / "test" / "0000" / "odd.jpg", 1)
    assert version.read(folder).warnings == (
        f"{folder / 'list_query.txt'}: 1 image(s) left out, no camera 1 to 15 in the name: 0000/odd.jpg",
        f"{folder / 'list_gallery.txt'}: 2 listed image(s) are not in test: {gone}, ../train/x.jpg",
    )
    (folder / "list_query.txt").write_text("a.jpg one\nb.jpg -3\n")
    with pytest.raises(DataError) as error:
        version.read(folder)
    assert error.value.problems == (
        f"{folder / 'list_query.txt'}, line 1: pid is not a whole number: 'one'",
        f"{folder / 'list_query.txt'}, line 2: pid is out of range (0 to 2147483647): -3",
    )
    (folder / "list_query.txt").unlink()
    (folder / "list_val.txt").unlink()
    with pytest.raises(
        DataError, match=r"has no list_val.txt, list_query.txt: a known bad copy, one without lists. They say"
    ):
        version.read(folder)


@pytest.mark.parametrize("change", ["deeper", "shallower"])
def test_msmt17_with_other_folders_than_in_its_lists(change: str, tmp_path: Path) -> None:
    folder = make_layout("msmt17", tmp_path)
    version = ListVersion("V1", ("train", "test"))
    expected = version.read(folder).entries
    if change == "deeper":
        (folder / "train").rename(folder / "x")
        (folder / "train").mkdir()
        (folder / "x").rename(folder / "train" / "train")
    else:
        for image in list((folder / "train").glob("*/*.jpg")):
            image.rename(folder / "train" / image.name)
    listing = version.read(folder)
    assert listing.warnings == ()
    assert [(e.split, e.pid, e.camid) for e in listing.entries] == [
        (e.split, e.pid, e.camid) for e in expected
    ]
    assert all((folder / entry.path).is_file() for entry in listing.entries)


def test_names_that_occur_twice_are_found_by_their_path_only(tmp_path: Path) -> None:
    folder = make_layout("msmt17", tmp_path)
    first = next((folder / "train").glob("*/*.jpg"))
    for copy in ("one", "two"):
        (folder / "train" / copy).mkdir()
        shutil.copy(first, folder / "train" / copy)
    first.unlink()
    (warning,) = ListVersion("V1", ("train", "test")).read(folder).warnings
    assert warning.endswith(f"1 listed image(s) are not in train: {first.parent.name}/{first.name}")


def test_v2_in_the_folders_of_v1(tmp_path: Path) -> None:
    """Its scores are lower, so it must not pass for V1 in silence."""
    folder = make_layout("msmt17", tmp_path)
    folder = folder.rename(folder.with_name("MSMT17_V2"))
    (warning,) = ListVersion("V1", ("train", "test")).read(folder).warnings
    assert warning.startswith(f"{folder} is named as V2, its folders as those of V1: where faces are blurred")
    v2 = make_layout("msmt17", tmp_path / "other", version="V2")
    assert ListVersion("V2", ("mask_train_v2", "mask_test_v2")).read(v2).warnings == ()
