from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calr_cli.data.manifest import REMEDY, SPLITS, Record, read_manifest, write_manifest
from calr_cli.errors import DataError

HEADER = "split,path,pid,camid,digest\n"
GOOD = "train,a.jpg,3,0,0a\n"

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1).filter(
    lambda name: name not in {".", ".."}
)
records = st.lists(
    st.tuples(st.sampled_from(SPLITS), names, st.integers(-1, 2**31 - 1), st.integers(0, 99), st.just("")),
    max_size=20,
    unique_by=lambda record: record[:2],
)


@settings(deadline=None)  # the disk may be busy
@given(records, st.randoms())
def test_round_trip_in_digest_order_whatever_the_order_of_writing(rows: list[Record], random: Random) -> None:
    rows = [(*row[:4], f"{random.randrange(8):02x}") for row in [("train", "first", 0, 0, ""), *rows]]
    rows = list({row[:2]: row for row in rows}.values())
    with TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.csv"
        write_manifest(path, rows)
        dataset = read_manifest(path, "made-up", Path("/images"))
        written = path.read_bytes()
        random.shuffle(rows)
        write_manifest(path, rows)
        assert path.read_bytes() == written
    for split in SPLITS:
        images = getattr(dataset, split)
        found = list(zip(images.digests, images.paths, images.pids, images.camids, strict=True))
        assert found == sorted((d, path, pid, cam) for s, path, pid, cam, d in rows if s == split)
        assert images.root == Path("/images")


def test_hand_edited_order_is_mended(tmp_path: Path) -> None:
    """Clustering depends on record order, so it must not depend on an editor's sort."""
    path = tmp_path / "manifest.csv"
    path.write_text(HEADER + "train,a.jpg,1,0,bb\ntrain,b.jpg,2,1,aa\n")
    assert read_manifest(path, "x", tmp_path).train.paths == ("b.jpg", "a.jpg")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("tran,b.jpg,1,0,0b", "split is none of train, query, gallery: 'tran'"),
        ("train,,1,0,0b", "path is blank"),
        ("train,b.jpg,one,0,0b", "pid is not a whole number: 'one'"),
        ("train,b.jpg,1.5,0,0b", "pid is not a whole number: '1.5'"),
        ("train,b.jpg,-2,0,0b", "pid is out of range (-1 to 2147483647): -2"),
        ("train,b.jpg,1,-1,0b", "camid is out of range (0 to 2147483647): -1"),
        (
            "train,b.jpg,1,99999999999999999999,0b",
            "camid is out of range (0 to 2147483647): 99999999999999999999",
        ),
        ("train,b.jpg,1,,0b", "camid is not a whole number: ''"),
        ("train,b.jpg,1,0,", "digest is not a hexadecimal number: ''"),
        ("train,b.jpg,1,0,xyz", "digest is not a hexadecimal number: 'xyz'"),
        ("train,a.jpg,1,0,0b", "path is listed twice in split train: 'a.jpg'"),
        ("train,/etc/b.jpg,1,0,0b", "path leads out of the dataset's folder: '/etc/b.jpg'"),
        ("train,x/../../b.jpg,1,0,0b", "path leads out of the dataset's folder: 'x/../../b.jpg'"),
        ("train,b.jpg,1,0", "4 cells, the header has 5"),
    ],
)
def test_nonsense_is_named_with_file_line_and_value(tmp_path: Path, row: str, problem: str) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(f"{HEADER}{GOOD}{row}\n")
    with pytest.raises(DataError) as error:
        read_manifest(path, "x", tmp_path)
    assert error.value.lines() == [f"{path}, line 3: {problem}. {REMEDY}"]


def test_many_problems_are_capped(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(HEADER + GOOD + "".join(f"train,{n}.jpg,x,0,0b\n" for n in range(9)))
    with pytest.raises(DataError) as error:
        read_manifest(path, "x", tmp_path)
    lines = error.value.lines()
    assert len(lines) == 6
    assert lines[4] == f"{path}, line 7: pid is not a whole number: 'x'"
    assert lines[5] == f"{path}: and 4 more. {REMEDY}"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "{path} has no column split, path, pid, camid, digest in its first line"),
        (
            b"split,path,pid,camid\n",
            "{path} has no column digest in its first line; it has split, path, pid, camid",
        ),
        (b"split,path,pid,camid,digest,path\n", "{path} has column path more than once"),
        (b"\x89PNG\r\n\x1a\n\0\0", "{path} has no column split, path, pid, camid, digest in its first line"),
        (HEADER.encode() + b'train,"a"b,1,0,0a\n', "{path} is not a CSV text file"),
        (HEADER.encode() + b"query,a.jpg,1,0,0a\n", "{path} lists no training image"),
    ],
)
def test_files_that_are_no_manifest(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_manifest(path, "x", tmp_path)
    assert error.value.problems == (problem.format(path=path),)


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda rest: (HEADER + GOOD).encode() + rest))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.csv"
    path.write_bytes(content)
    with suppress(DataError):  # any other exception fails this test
        assert len(read_manifest(path, "x", path.parent).train)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest.csv cannot be read: No such file or directory"):
        read_manifest(tmp_path / "manifest.csv", "x", tmp_path)


def test_own_data_may_lie_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(HEADER + "train,/elsewhere/b.jpg,1,0,0b\ntrain,../c.jpg,1,0,0c\n")
    dataset = read_manifest(path, "x", tmp_path, inside_root=False)
    assert dataset.train.paths == ("/elsewhere/b.jpg", "../c.jpg")
