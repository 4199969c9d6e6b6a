from __future__ import annotations

import re
import shutil
import unicodedata
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calr_cli.errors import ConfigError, DataError
from calr_cli.prepare.card import DatasetCard
from calr_cli.prepare.datasets.own import ONE_CAMERA, PATTERN_HELP, list_own_images
from calr_cli.prepare.own_images import prepare_own_images
from calr_cli.prepare.prepared import load_dataset
from calr_cli.types import UNKNOWN_PID, ImageSet
from tests.support.heard import Heard
from tests.support.made_up import write_image
from tests.support.read_only import read_only_root

PATTERN = r"(?P<pid>-?\d+)_c(?P<camid>\d+)_"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four identities, cameras 2 and 10, three images each."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for pid in (5, 7, 11, 20):
        for camera in (2, 10):
            for n in range(3):
                write_image(folder / f"{pid}_c{camera}_{n}.png", pid, seed=10 * camera + n)
    return folder


def prepare(
    images: Path, pattern: str | None = PATTERN, split: float | None = None, seed: int = 1
) -> DatasetCard:
    return prepare_own_images(images, None, pattern, split, seed, Heard())


def by_path(images: ImageSet) -> dict[str, tuple[int, int]]:
    return dict(
        zip(images.paths, zip(images.pids.tolist(), images.camids.tolist(), strict=True), strict=True)
    )


def test_cameras_are_numbered_by_value_and_pids_kept(images: Path) -> None:
    card = prepare(images)
    assert (card.name, card.version, card.root, card.source) == ("shop", "own images", images, images)
    dataset = load_dataset("shop")
    found = by_path(dataset.train)
    assert found["5_c2_0.png"] == (5, 0)
    assert found["20_c10_2.png"] == (20, 1)  # as words, 10 would come before 2
    assert len(found) == 24
    assert len(dataset.query) == len(dataset.gallery) == 0


def test_the_patterns_of_the_documentation(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "datasets.md"
    rows = re.findall(r"^\| `([^`]+[.]jpg)` \| `(.+)` \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 4
    for number, (name, pattern) in enumerate(rows):
        path = tmp_path / str(number) / name
        path.parent.mkdir(parents=True)
        path.touch()
        (entry,) = list_own_images(tmp_path / str(number), pattern.replace(r"\|", "|")).entries
        assert (entry.path, entry.camid) == (name, 0)
        assert entry.pid == (0 if "Anna" in name else 1)
        assert entry.split == ("query" if "query" in name else "train")


def test_words_and_folders(tmp_path: Path) -> None:
    """The pattern is searched in the whole relative path."""
    for place in ("yard/anna/1.jpg", "yard/bo/1.jpg", "door/anna/1.jpg", "door/anna/2.jpg"):
        (tmp_path / "x" / place).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / "x" / place, len(place))
    prepare(tmp_path / "x", r"^(?P<camid>\w+)/(?P<pid>\w+)/")
    assert by_path(load_dataset("x").train) == {
        "door/anna/1.jpg": (0, 0),
        "door/anna/2.jpg": (0, 0),
        "yard/anna/1.jpg": (0, 1),
        "yard/bo/1.jpg": (1, 1),
    }


def test_without_a_pattern_all_images_are_of_one_camera(images: Path) -> None:
    heard = Heard()
    card = prepare_own_images(images, None, None, None, 1, heard)
    lost = f"{images}: no camid is given, so all images count as one camera's: {ONE_CAMERA}"
    assert heard.warnings == [lost] == list(card.warnings)
    train = load_dataset("shop").train
    assert len(train) == 24
    assert (set(train.pids.tolist()), set(train.camids.tolist())) == ({UNKNOWN_PID}, {0})


def test_a_pattern_without_a_camera(images: Path) -> None:
    listing = list_own_images(images, r"^(?P<pid>\d+)_c2")
    assert {(entry.pid, entry.camid) for entry in listing.entries} == {(5, 0), (7, 0), (11, 0), (20, 0)}
    assert "no camid is given" in listing.warnings[1]


def test_one_camera_in_all_names(images: Path) -> None:
    assert list_own_images(images, r"(?P<camid>[.])").warnings == (
        f"{images}: all images are of one camera: {ONE_CAMERA}",
    )


def test_accents_are_the_same_in_either_normalisation(tmp_path: Path) -> None:
    """Names from macOS are decomposed, patterns are typed composed: they look the same."""
    for n, folder in enumerate(("Büro", unicodedata.normalize("NFD", "Büro"), "Tür 東 2")):
        (tmp_path / "x" / folder).mkdir(parents=True)
        write_image(tmp_path / "x" / folder / f"Zoë's {n}.png", n)
    prepare(tmp_path / "x", r"^(?P<camid>Büro|Tür .*)/")
    assert sorted(by_path(load_dataset("x").train).values()) == [(UNKNOWN_PID, 0)] * 2 + [(UNKNOWN_PID, 1)]


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """A name is bytes: it may hold others than UTF-8, line breaks and quotes."""
    folder = tmp_path / "x"
    folder.mkdir()
    names = ["a,b;c.png", "new\nline.png", "re\rturn.png", '"quoted".png', " blank .png", "caf\udce9.png"]
    for n, name in enumerate(names):
        write_image(folder / name, n)
    prepare(folder, None)
    train = load_dataset("x").train
    assert sorted(train.paths) == sorted(names)
    assert all((train.root / path).is_file() for path in train.paths)


@given(name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), max_size=60))
def test_any_name_comes_back(name: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.png"
        try:
            path.touch()
        except OSError:  # too long
            return
        expected = [] if name.startswith((".", "__MACOSX")) or not name else [path.name]
        with nullcontext() if expected else pytest.raises(DataError, match="There is no image under"):
            assert [entry.path for entry in list_own_images(Path(folder), None).entries] == expected


@given(
    pattern=st.text(max_size=12) | st.from_regex(r"[(?P<camidpsl>.*\\d+)\[\]{}|^$_]{0,20}", fullmatch=True)
)
def test_any_pattern_is_used_or_refused_in_one_line(pattern: str) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "001_c2_7.png").touch()
        try:
            found = len(list_own_images(Path(folder), pattern).entries)
        except DataError as error:
            found = len(error.lines())
        assert found == 1


@pytest.mark.parametrize("pattern", ["(?P<camid>x{99999999999})", "(" * 9000, r"(?P<camid>[[a]\d)"])
def test_patterns_that_the_compiler_stumbles_over(pattern: str, images: Path) -> None:
    with pytest.raises(DataError, match=r"is not a regular expression|fits no image"):
        list_own_images(images, pattern)


def test_an_empty_camera_does_not_fit(images: Path) -> None:
    listing = list_own_images(images, r"c(?P<camid>10)?")
    assert len(listing.entries) == 12
    assert "12 image(s) left out, the pattern does not fit" in listing.warnings[0]


def test_read_only_images() -> None:
    def fill(root: Path) -> None:
        for camera in "12":
            write_image(root / f"1_c{camera}_.png", int(camera))

    with read_only_root(fill) as (root, home), pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALR_HOME", str(home))
        prepare_own_images(root, "shop", PATTERN, None, 1, Heard())
        assert len(load_dataset("shop").train) == 2


def test_a_linked_folder_is_called_by_the_name_of_the_link(images: Path, tmp_path: Path) -> None:
    (tmp_path / "market-place").symlink_to(images)
    card = prepare(tmp_path / "market-place")
    assert (card.name, card.root) == ("market-place", tmp_path / "market-place")


def test_a_folder_given_by_dots(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (images / "inner").mkdir()
    monkeypatch.chdir(images / "inner")
    assert (prepare(Path("..")).name, prepare(Path("..")).root) == ("shop", images)
    monkeypatch.chdir(images)
    assert prepare(Path()).name == "shop"


def test_without_pids_training_images_have_none(images: Path) -> None:
    prepare(images, r"c(?P<camid>\d+)")
    train = load_dataset("shop").train
    assert set(train.pids.tolist()) == {UNKNOWN_PID}
    assert not train.has_identities


def test_a_pid_that_is_not_in_every_name(images: Path) -> None:
    write_image(images / "_c2_9.png", 99)
    prepare(images, r"(?P<pid>\d+)?_c(?P<camid>\d+)_")
    assert by_path(load_dataset("shop").train)["_c2_9.png"] == (UNKNOWN_PID, 0)


def places(folder: Path, names: dict[str, int]) -> Path:
    """Images of these relative paths, of the colour of an identity."""
    for n, (place, identity) in enumerate(names.items()):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / place, identity, seed=n)
    return folder


SPLIT_PATTERN = rf"(?P<split>train|query|gallery)/{PATTERN}"


def test_junk_is_left_out_of_query_and_gallery(tmp_path: Path) -> None:
    """As of Market-1501. With the pattern of the documentation it once became identity 1."""
    names = {"train/1_c1_0.jpg": 1, "train/-1_c2_0.jpg": 9, "query/2_c1_0.jpg": 2, "query/-1_c1_0.jpg": 9}
    names |= {"gallery/2_c2_0.jpg": 2, "gallery/-1_c1_0.jpg": 9, "gallery/-1_c2_1.jpg": 9}
    card = prepare(places(tmp_path / "x", names), SPLIT_PATTERN)
    assert (card.junk, card.warnings) == (3, ())
    dataset = load_dataset("x")
    assert by_path(dataset.train) == {"train/1_c1_0.jpg": (1, 0), "train/-1_c2_0.jpg": (UNKNOWN_PID, 1)}
    assert by_path(dataset.query) == {"query/2_c1_0.jpg": (2, 0)}
    assert by_path(dataset.gallery) == {"gallery/2_c2_0.jpg": (2, 1)}
    assert dataset.query.has_identities
    assert dataset.gallery.has_identities


def test_junk_that_a_pattern_takes_for_identity_1(tmp_path: Path) -> None:
    folder = places(tmp_path / "x", {"-1_c1_0.jpg": 9, "1_c1_0.jpg": 1, "a-1_c1_0.jpg": 1, "2_c2_0.jpg": 2})
    without_sign = r"(?P<pid>\d+)_c(?P<camid>\d+)_"
    assert list_own_images(folder, without_sign).warnings == (
        f"{folder}: 1 image(s) of identity 1 have names that begin with -1, which is how datasets mark junk "
        r"(-1_c1_0.jpg): if that is so, write (?P<pid>-?\d+) for (?P<pid>\d+)",
    )
    assert list_own_images(folder, PATTERN).warnings == ()


def test_numbers_with_leading_zeros_are_the_numbers_whatever_the_others_are(tmp_path: Path) -> None:
    names = {"7_c1_.jpg": 7, "007_c01_.jpg": 7, "anna_c1_.jpg": 1, "000_c02_.jpg": 2}
    listing = list_own_images(places(tmp_path, names), r"(?P<pid>\w+)_c(?P<camid>\d+)_")
    found = {entry.path: (entry.pid, entry.camid) for entry in listing.entries}
    assert found["7_c1_.jpg"] == found["007_c01_.jpg"]
    assert len({pid for pid, _ in found.values()}) == 3
    (tmp_path / "anna_c1_.jpg").unlink()
    numbers = list_own_images(tmp_path, r"(?P<pid>\w+)_c(?P<camid>\d+)_").entries
    assert {entry.pid for entry in numbers} == {7, 0}


def test_every_image_its_own_camera(tmp_path: Path) -> None:
    """The pattern has found the number of the image, and stage 1 would have nothing to do."""
    folder = places(tmp_path / "x", {f"1_c1_{n}.jpg": 1 for n in range(9)})
    assert list_own_images(folder, r"_(?P<camid>\d+)[.]").warnings == (
        f"{folder}: 9 images are of 9 cameras, as 0, 1, 2, 3, 4 and 4 more: camid seems to be the number of "
        "an image; stage 1 finds nothing in cameras of an image each",
    )


def test_files_in_two_splits_and_queries_without_a_match(tmp_path: Path) -> None:
    """Random weights once had Rank-1 100 so, and not a word was said."""
    names = {f"train/{pid}_c{camera}_.jpg": pid for pid in (1, 2) for camera in (1, 2)}
    names |= {f"query/{pid}_c1_.jpg": pid for pid in (3, 4, 5)} | {"gallery/4_c2_.jpg": 4}
    folder = places(tmp_path / "x", names)
    for name, copy in {
        "query/3_c1_.jpg": "gallery/3_c1_.jpg",  # its own, which its query is not asked about
        "query/4_c1_.jpg": "gallery/4_c3_.jpg",
        "train/1_c1_.jpg": "query/1_c1_.jpg",
        "train/2_c1_.jpg": "gallery/1_c2_.jpg",
    }.items():
        shutil.copy(folder / name, folder / copy)
    assert prepare(folder, SPLIT_PATTERN).warnings == (
        "x: the same file is in two splits, so the figures of an evaluation mean little: 1 of 4 query images "
        "in gallery (query/4_c1_.jpg); 1 of 4 query images in train (query/1_c1_.jpg); 1 of 4 gallery images "
        "in train (gallery/1_c2_.jpg)",
        "x: 2 of 4 queries will not count, since no gallery image is of their identity and another camera: "
        "query/3_c1_.jpg, query/5_c1_.jpg",
    )
    heard = Heard()
    prepare_own_images(folder, None, SPLIT_PATTERN, None, 1, heard)
    assert len(heard.warnings) == 2  # of the card, when nothing is read again


def test_splits_in_the_names(tmp_path: Path) -> None:
    for place in ("train/1_c1_.jpg", "query/2_c1_.jpg", "gallery/2_c2_.jpg"):
        (tmp_path / "x" / place).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / "x" / place, 1, seed=len(place))
    pattern = rf"(?P<split>\w+)/{PATTERN}"
    prepare(tmp_path / "x", pattern)
    dataset = load_dataset("x")
    assert (dataset.train.paths, dataset.query.paths) == (("train/1_c1_.jpg",), ("query/2_c1_.jpg",))
    with pytest.raises(DataError, match=r"The images name their splits already. Leave --split out"):
        prepare(tmp_path / "x", pattern, split=0.5)
    (tmp_path / "x" / "query").rename(tmp_path / "x" / "probe")
    with pytest.raises(
        DataError, match=r"The pattern's split is none of train, query, gallery in probe/2_c1_.jpg"
    ):
        prepare(tmp_path / "x", pattern)


def test_share_of_identities(images: Path) -> None:
    card = prepare(images, split=0.5)
    dataset = load_dataset("shop")
    train, test = set(dataset.train.pids.tolist()), set(dataset.gallery.pids.tolist())
    assert len(train) == len(test) == 2
    assert not train & test
    assert card.splits["query"].images == 4  # two identities by two cameras
    assert card.splits["gallery"].images == 8
    for image, pid, camid in zip(dataset.query.paths, dataset.query.pids, dataset.query.camids, strict=True):
        alike = (dataset.gallery.pids == pid) & (dataset.gallery.camids == camid)
        digest = dataset.query.digests[dataset.query.paths.index(image)]
        assert all(digest <= dataset.gallery.digests[i] for i in np.flatnonzero(alike))
    drawn = {frozenset(prepare_train(images, seed)) for seed in range(8)}
    assert len(drawn) > 1
    assert prepare_train(images, 1) == train  # the seed decides, nothing else


def prepare_train(images: Path, seed: int) -> set[int]:
    prepare(images, split=0.5, seed=seed)
    return set(load_dataset("shop").train.pids.tolist())


def test_shares_that_cannot_be_used(images: Path) -> None:
    for share in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(
            ConfigError, match=rf"The split is out of range: {share}. Give the training share, as 0.5"
        ):
            prepare(images, split=share)


def test_a_split_that_cannot_be_is_refused_before_images_are_read(images: Path) -> None:
    heard = Heard()
    with pytest.raises(DataError, match=r"^All images are of one camera"):
        prepare_own_images(images, None, r"^(?P<pid>\d+)", 0.5, 1, heard)
    assert heard.steps == []


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        (
            "(",
            "The pattern '(' is not a regular expression: missing ), unterminated subpattern at position 0",
        ),
        (r"c(\d+)", r"The pattern 'c(\d+)' has no group named camid or pid or split"),
        (r"c(?P<camid>\d)(?P<person>)", "The pattern has a group named person; known are camid, pid, split"),
        (
            r"z(?P<camid>\d+)",
            r"The pattern 'z(?P<camid>\d+)' fits no image under {images}, not even 11_c10_0.png",
        ),
    ],
)
def test_patterns_that_cannot_be_used(pattern: str, problem: str, images: Path) -> None:
    with pytest.raises(DataError) as error:
        prepare(images, pattern)
    assert error.value.lines() == [f"{problem.replace('{images}', str(images))}. {PATTERN_HELP}"]


def test_images_that_the_pattern_does_not_fit(images: Path) -> None:
    write_image(images / "cat.png", 1)
    (images / "Thumbs.db").touch()
    warning = f"{images}: 1 image(s) left out, the pattern does not fit: cat.png"
    assert list_own_images(images, PATTERN).warnings == (warning,)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no folder .*/nowhere. Give the folder of your images"):
        prepare(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"There is no image under .*/empty. Images end in"):
        prepare(tmp_path / "empty")


@pytest.mark.parametrize("name", ["", "a b", "../x", "ä", "a.b", "x/y"])
def test_names_that_cannot_be_used(name: str, images: Path) -> None:
    with pytest.raises(
        ConfigError, match=rf"'{re.escape(name)}' cannot be the name of a dataset. Give --name"
    ):
        prepare_own_images(images, name, PATTERN, None, 1, Heard())


@pytest.mark.parametrize("name", ["veri", "market", "Synthetic", "DUKE"])
def test_names_of_built_in_datasets(name: str, images: Path) -> None:
    with pytest.raises(
        ConfigError, match=f"The name {name} belongs to a built-in dataset. Give another --name"
    ):
        prepare_own_images(images, name, PATTERN, None, 1, Heard())


def test_unchanged_images_are_not_read_again_but_for_another_split(images: Path) -> None:
    def steps(split: float | None, seed: int = 1, verify: bool = False) -> list[str]:
        heard = Heard()
        prepare_own_images(images, "shop", PATTERN, split, seed, heard, verify=verify)
        return heard.steps

    assert len(steps(None)) == 1
    assert len(steps(None)) == 0
    assert len(steps(0.5)) == 1
    assert len(steps(0.5)) == 0
    assert len(steps(0.5, seed=2)) == 1
    assert len(steps(0.5, seed=2, verify=True)) == 1


@pytest.mark.real
def test_real_pku(shared: Path) -> None:
    folder = shared / "data" / "pku-reid"
    card = prepare_own_images(folder, None, PATTERN, 0.5, 1, Heard())
    assert card.name == "pku-reid"
    assert [vars(counts) for counts in card.splits.values()] == [
        {"images": 592, "ids": 37, "cameras": 2},
        {"images": 74, "ids": 37, "cameras": 2},
        {"images": 518, "ids": 37, "cameras": 2},
    ]
    assert card.images_per_camera["train"] == (296, 296)
    assert card.warnings == card.unreadable == ()
    dataset = load_dataset("pku-reid")
    both = {*dataset.train.digests, *dataset.query.digests, *dataset.gallery.digests}
    assert len(both) == 1183  # two images are the same
