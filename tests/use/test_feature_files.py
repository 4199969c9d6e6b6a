"""Features as other programs read them, and features that other programs wrote."""

from __future__ import annotations

import csv
import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from calr_cli.errors import ConfigError, DataError
from calr_cli.use.feature_files import Features, check_feature_output, open_features, write_features
from tests.support.features import unit_features

ODD = os.fsdecode(b"no \xff text, \n.jpg")
FEATURES = Features(("a/1.jpg", 'ä,b".png', ODD), unit_features(0, 3, 5), "key", "bf16")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths are seen from here."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["f.npz", "f.csv", "f.parquet", "F.NPZ"])
@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_a_file_comes_back_block_by_block(tmp_path: Path, name: str, rows: int) -> None:
    features = FEATURES if name != "f.parquet" else replace(FEATURES, paths=("a/1.jpg", 'ä,b".png', "3.jpg"))
    write_features(tmp_path / name, features)
    file = open_features(tmp_path / name)
    assert (file.paths, file.dim) == (tuple(str(tmp_path / path) for path in features.paths), 5)
    assert (file.model, file.precision) == ("key", "bf16")
    blocks = list(file.blocks(rows))
    assert max(map(len, blocks)) == min(rows, 3)
    np.testing.assert_array_equal(np.concatenate(blocks), FEATURES.rows)


def test_npz_is_what_numpy_reads(tmp_path: Path) -> None:
    write_features(tmp_path / "f.npz", FEATURES)
    with np.load(tmp_path / "f.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"paths", "features", "model", "precision"}
        assert tuple(arrays["paths"]) == FEATURES.paths
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


def test_csv_keeps_every_bit(tmp_path: Path) -> None:
    write_features(tmp_path / "f.csv", FEATURES)
    with (tmp_path / "f.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["path", "f0", "f1", "f2", "f3", "f4", "model", "precision"]
    assert [row[6:] for row in rows] == [["key", "bf16"]] * 3
    assert tuple(row[0] for row in rows) == FEATURES.paths
    np.testing.assert_array_equal(np.array([row[1:6] for row in rows]).astype(np.float32), FEATURES.rows)


def test_parquet(tmp_path: Path) -> None:
    write_features(tmp_path / "f.parquet", FEATURES)
    table = parquet.read_table(tmp_path / "f.parquet")
    assert table.column("path").to_pylist()[:2] == list(FEATURES.paths[:2])
    np.testing.assert_array_equal(np.stack(table.column("feature").to_numpy()), FEATURES.rows)
    assert table.schema.metadata[b"calr_model"] == b"key"
    assert table.schema.metadata[b"calr_precision"] == b"bf16"


@pytest.mark.parametrize("name", ["f.npz", "f.csv", "f.parquet"])
def test_paths_lead_to_the_images_wherever_the_file_is(tmp_path: Path, name: str) -> None:
    """In the file they are seen from its folder, though that may be a link; read, from here."""
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "far" / "away")
    write_features(Path("out") / name, replace(FEATURES, paths=("a/1.jpg", "/x/2.jpg", "3.jpg")))
    for folder in (Path("out"), Path("far/away"), tmp_path / "far" / "away"):
        paths = open_features(folder / name).paths
        expected = [str(tmp_path / "a" / "1.jpg"), "/x/2.jpg", str(tmp_path / "3.jpg")]
        assert [os.path.realpath(path) for path in paths] == expected
    assert open_features(Path("far/away") / name).paths[0] == "a/1.jpg"


def test_what_would_be_lost(tmp_path: Path) -> None:
    """A table is no output of before only because of its name."""
    for name, content in {"f.csv": b"path,pid\nx,1\n", "f.npz": b"x", "f.parquet": b"x"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match="is no file of features: it would be lost"):
            check_feature_output(tmp_path / name)
        assert (tmp_path / name).read_bytes() == content
        (tmp_path / name).write_bytes(b"")  # as mktemp makes it
        check_feature_output(tmp_path / name)
        write_features(tmp_path / name, replace(FEATURES, paths=("1", "2", "3")))
        check_feature_output(tmp_path / name)


def test_a_file_that_cannot_be_written_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"the name must end in \.npz, \.csv, \.parquet$"):
        check_feature_output(tmp_path / "f.txt")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        check_feature_output(tmp_path / "folder.npz")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"pip install 'calr-cli\[parquet\]'"):
        check_feature_output(tmp_path / "f.parquet")


def test_what_others_write(tmp_path: Path) -> None:
    """Compressed, in double or half precision, without a model."""
    for kind in (np.float64, np.float16):
        rows = FEATURES.rows.astype(kind)
        np.savez_compressed(tmp_path / "f.npz", features=rows, paths=["x", "y", "z"])
        file = open_features(tmp_path / "f.npz")
        (block,) = file.blocks(10)
        assert (file.model, file.precision, block.dtype) == ("", "", np.float32)
        assert file.paths == ("x", "y", "z")
        np.testing.assert_allclose(block, FEATURES.rows, atol=1e-3)


class Trap:
    def __reduce__(self) -> object:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({"features": FEATURES.rows}, "has no arrays 'paths' and 'features'"),
        ({"paths": ["x"]}, "has no arrays 'paths' and 'features'"),
        ({"features": FEATURES.rows, "paths": ["x"]}, r"has features of shape \(3, 5\) for 1 paths"),
        ({"features": FEATURES.rows[:0], "paths": []}, "has no features"),
        (
            {"features": np.asfortranarray(FEATURES.rows), "paths": ["x"] * 3},
            "not an .npz file, or it is dam",
        ),
        ({"features": np.ones((3, 5), int), "paths": ["x"] * 3}, "not an .npz file, or it is damaged"),
        ({"features": FEATURES.rows, "paths": np.array([Trap()] * 3)}, "not an .npz file, or it is damaged"),
    ],
)
def test_arrays_that_are_no_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: dict[str, object], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("f.npz", **arrays)
    with pytest.raises(DataError, match=line):
        open_features(Path("f.npz"))
    assert not Path("executed").exists()


def test_a_pickle_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "f.npz").write_bytes(pickle.dumps([1]))
    with pytest.raises(DataError, match="is damaged"):
        open_features(tmp_path / "f.npz")


def test_an_encrypted_archive_is_not_read(tmp_path: Path) -> None:
    write_features(tmp_path / "f.npz", FEATURES)
    content = bytearray((tmp_path / "f.npz").read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # of each member, in both of its headers
        place = content.find(signature)
        while place >= 0:
            content[place + offset] |= 1
            place = content.find(signature, place + 1)
    (tmp_path / "f.npz").write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        open_features(tmp_path / "f.npz")


def test_damage_is_noticed(tmp_path: Path) -> None:
    """The archive's own checksums: a flipped bit is no feature."""
    write_features(tmp_path / "f.npz", FEATURES)
    content = bytearray((tmp_path / "f.npz").read_bytes())
    place = content.find(FEATURES.rows.tobytes())
    content[place + 20] ^= 1
    (tmp_path / "f.npz").write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        list(open_features(tmp_path / "f.npz").blocks(2))
    (tmp_path / "f.npz").write_bytes(content[:-30])
    with pytest.raises(DataError, match="damaged"):
        open_features(tmp_path / "f.npz")


def test_rows_that_are_not_of_unit_length(tmp_path: Path) -> None:
    rows = FEATURES.rows * np.array([[1], [1], [3]], np.float32)
    np.savez(tmp_path / "f.npz", features=rows, paths=["x", "y", "z"])
    with pytest.raises(DataError, match="row 2 of features is not of unit length"):
        list(open_features(tmp_path / "f.npz").blocks(2))
