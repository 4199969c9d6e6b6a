from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calr_cli.data.card import DatasetCard
from calr_cli.data.datasets.own import CSV_HELP, PATTERN_HELP, list_own_images, split_identities
from calr_cli.data.manifest import Record
from calr_cli.data.prepare_own import prepare_own_csv, prepare_own_images
from calr_cli.data.prepared import load_dataset
from calr_cli.errors import ConfigError, DataError
from calr_cli.types import UNKNOWN_PID, ImageSet
from tests.support.heard import Heard
from tests.support.made_up import write_image

PATTERN = r"(?P<pid>\d+)_c(?P<camid>\d+)_"


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


def prepare(images: Path, pattern: str = PATTERN, split: float | None = None, seed: int = 1) -> DatasetCard:
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


def test_without_pids_training_images_have_none(images: Path) -> None:
    prepare(images, r"c(?P<camid>\d+)")
    train = load_dataset("shop").train
    assert set(train.pids.tolist()) == {UNKNOWN_PID}
    assert not train.has_identities


def test_a_pid_that_is_not_in_every_name(images: Path) -> None:
    write_image(images / "_c2_9.png", 99)
    prepare(images, r"(?P<pid>\d+)?_c(?P<camid>\d+)_")
    assert by_path(load_dataset("shop").train)["_c2_9.png"] == (UNKNOWN_PID, 0)


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


rows = st.lists(st.tuples(st.integers(-1, 6), st.integers(0, 3)), min_size=2, max_size=40).filter(
    lambda pairs: len({pid for pid, _ in pairs if pid >= 0}) >= 2
)


@settings(deadline=None)
@given(rows, st.floats(0.01, 0.99), st.integers(0, 99), st.randoms())
def test_split_promises(pairs: list[tuple[int, int]], share: float, seed: int, random) -> None:
    records: list[Record] = [
        ("train", f"{n}.jpg", pid, camid, f"{random.randrange(16):02x}")
        for n, (pid, camid) in enumerate(pairs)
    ]
    result = split_identities(records, share, seed)
    assert sorted(row[1:] for row in result) == sorted(row[1:] for row in records)
    pids = {split: [row[2] for row in result if row[0] == split] for split in ("train", "query", "gallery")}
    train, test = set(pids["train"]) - {-1}, set(pids["gallery"]) | set(pids["query"])
    known = {pid for pid, _ in pairs} - {-1}
    assert train
    assert test
    assert sorted([*train, *test]) == sorted(known)  # all, and none on both sides
    assert len(train) == min(max(round(share * len(known)), 1), len(known) - 1)
    queries = [row[2:4] for row in result if row[0] == "query"]
    expected = {(p, c) for p, c in pairs if p in test and len({c2 for p2, c2 in pairs if p2 == p}) > 1}
    assert len(queries) == len(set(queries))
    assert set(queries) == expected
    shuffled = records.copy()
    random.shuffle(shuffled)
    assert split_identities(shuffled, share, seed) == result


def test_split_without_identities(images: Path) -> None:
    with pytest.raises(
        DataError, match=r"needs at least two known identities, there are 0. Add the group pid"
    ):
        prepare(images, r"c(?P<camid>\d+)", split=0.5)
    for share in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(
            ConfigError, match=rf"The split is out of range: {share}. Give the training share, as 0.5"
        ):
            prepare(images, split=share)


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        (
            "(",
            "The pattern '(' is not a regular expression: missing ), unterminated subpattern at position 0",
        ),
        (r"c(\d+)", r"The pattern 'c(\d+)' has no group named camid"),
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
    def steps(split: float | None, seed: int = 1) -> list[str]:
        heard = Heard()
        prepare_own_images(images, "shop", PATTERN, split, seed, heard)
        return heard.steps

    assert len(steps(None)) == 1
    assert len(steps(None)) == 0
    assert len(steps(0.5)) == 1
    assert len(steps(0.5)) == 0
    assert len(steps(0.5, seed=2)) == 1


def test_csv(images: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(
        "camid,split,path,note,pid\n"
        "gate,train,shop/5_c2_0.png,hello,\n"
        f"yard,query,{images / '5_c2_1.png'},,anna\n"
        "gate,gallery,./shop/5_c2_2.png,,bo\n",
        encoding="utf-8-sig",  # as Excel writes it
    )
    card = prepare_own_csv(table, None, None, 1, Heard())
    assert (card.name, card.root, card.source) == ("table", tmp_path, table)
    dataset = load_dataset("table")
    assert by_path(dataset.train) == {"shop/5_c2_0.png": (UNKNOWN_PID, 0)}
    assert by_path(dataset.query) == {str(images / "5_c2_1.png"): (0, 1)}
    assert by_path(dataset.gallery) == {"shop/5_c2_2.png": (1, 0)}
    assert (dataset.query.root / dataset.query.paths[0]).is_file()


def test_csv_with_a_share(images: Path, tmp_path: Path) -> None:
    lines = [f"{p.name},{p.name.split('_')[1]},{p.name.split('_')[0]}" for p in sorted(images.iterdir())]
    (images / "t.csv").write_text("\n".join(["path,camid,pid", *lines]))
    card = prepare_own_csv(images / "t.csv", "t", 0.25, 1, Heard())
    assert [counts.ids for counts in card.splits.values()] == [1, 3, 3]


def test_csv_nonsense_is_named_line_by_line(images: Path) -> None:
    table = images / "t.csv"
    table.write_text(
        "path,camid,split\n5_c2_0.png,,train\n,1,train\n5_c2_0.png,1,train\nno.png,1,train\n7_c2_0.png,1,test\n"
    )
    with pytest.raises(DataError) as error:
        prepare_own_csv(table, "t", None, 1, Heard())
    assert error.value.lines() == [
        f"{table}, line 2: camid is blank",
        f"{table}, line 3: path is blank",
        f"{table}, line 4: path is listed twice, first in line 2: '5_c2_0.png'",
        f"{table}, line 5: there is no file 'no.png'",
        f"{table}, line 6: split is none of train, query, gallery: 'test'. {CSV_HELP}",
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("path,pid\na.jpg,1\n", "{path} has no column camid in its first line"),
        ("path,camid\n", "{path} lists no image"),
        (None, "{path} cannot be read: No such file or directory"),
    ],
)
def test_csv_files_that_cannot_be_used(content: str | None, problem: str, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    if content is not None:
        table.write_text(content)
    with pytest.raises(DataError) as error:
        prepare_own_csv(table, "t", None, 1, Heard())
    assert error.value.lines() == [f"{problem.replace('{path}', str(table))}. {CSV_HELP}"]


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
    assert card.train_per_camera == (296, 296)
    assert card.warnings == card.unreadable == ()
    dataset = load_dataset("pku-reid")
    both = {*dataset.train.digests, *dataset.query.digests, *dataset.gallery.digests}
    assert len(both) == 1183  # two images are the same
