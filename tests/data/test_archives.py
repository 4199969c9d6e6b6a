from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from calr_cli.data.archives import HOSTILE, holds_folder, is_archive, unpack
from calr_cli.errors import DataError
from tests.support.heard import Heard
from tests.support.read_only import read_only_root


def files_under(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def write_archive(path: Path, contents: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
    else:
        compression = {".tgz": "gz", ".tar": ""}.get(path.suffix, path.suffix[1:])
        with tarfile.open(path, f"w:{compression}") as tar:
            for name, content in contents.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


GOOD = {"VeRi/image_train/a.jpg": b"a" * 5000, "VeRi/list.txt": b"list"}
RUBBISH = {
    "__MACOSX/VeRi/._a.jpg": b"x",
    "VeRi/._a.jpg": b"x",
    "VeRi/Thumbs.db": b"x",
    "VeRi/.DS_Store": b"x",
}


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"])
def test_unpacks_beside_the_archive_without_rubbish(ending: str, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / f"VeRi.v1{ending}", GOOD | RUBBISH)
    assert is_archive(archive.name)
    assert holds_folder(archive, {"image_train", "train"})
    assert not holds_folder(archive, {"train", "a.jpg"})
    heard = Heard()
    target = unpack(archive, heard)
    assert target == tmp_path / "VeRi.v1"
    assert files_under(target) == GOOD
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([archive.name, "VeRi.v1"])
    assert heard.steps == [f"Unpacking {archive.name}: 2 files"]
    assert unpack(archive, heard) == target
    assert len(heard.steps) == 1  # not again


@pytest.mark.parametrize(
    "name",
    ["../evil.jpg", "VeRi/../../evil.jpg", "/tmp/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg", "\\evil.jpg"],
)
@pytest.mark.parametrize("ending", [".zip", ".tar"])
def test_paths_that_lead_out_are_refused(ending: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    archive = write_archive(tmp_path / "data" / f"veri{ending}", GOOD | {name: b"evil"})
    with pytest.raises(DataError) as error:
        unpack(archive, Heard())
    assert error.value.lines() == [f"{archive}: '{name}' would be written outside of its folder. {HOSTILE}"]
    assert list((tmp_path / "data").iterdir()) == [archive]
    assert [path.name for path in tmp_path.iterdir() if "evil" in path.name] == []


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    """A link to / followed by a file below it writes anywhere."""
    link = zipfile.ZipInfo("VeRi/out")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "veri.zip", "w") as archive:
        archive.writestr(link, "/")
        archive.writestr("VeRi/out/evil.jpg", b"evil")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        with tarfile.open(tmp_path / f"veri{kind.decode()}.tar", "w") as tar:
            info = tarfile.TarInfo("VeRi/out")
            info.type, info.linkname = kind, "/"
            tar.addfile(info)
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 5
    for path in paths:
        with pytest.raises(DataError, match=r"'VeRi/out' is a link or device, not a file"):
            unpack(path, Heard())
    assert sorted(tmp_path.iterdir()) == paths


def test_larger_than_the_disk_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    count = shutil.disk_usage(tmp_path).free // 2**32 + 2
    archive = write_archive(tmp_path / "veri.zip", {f"{n}.jpg": b"" for n in range(count)})
    raw = bytearray(archive.read_bytes())
    entry = raw.index(b"PK\x01\x02")
    while entry >= 0:
        raw[entry + 24 : entry + 28] = b"\xfe\xff\xff\xff"  # the directory says that each has 4 GiB
        entry = raw.find(b"PK\x01\x02", entry + 1)
    archive.write_bytes(raw)
    with pytest.raises(
        DataError, match=rf"veri.zip needs {4 * count}.0 GiB, [0-9.]+ GiB are free. Make room"
    ):
        unpack(archive, Heard())
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("ending", [".zip", ".tar.gz", ".tar"])
def test_damaged_archives_leave_nothing(ending: str, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / f"veri{ending}", {**GOOD, "VeRi/b.jpg": os.urandom(100_000)})
    whole = archive.read_bytes()
    for content in (
        whole[: len(whole) // 2],
        b"",
        b"not an archive at all",
        whole[:3000] + b"\xff" + whole[3001:],
    ):
        archive.write_bytes(content)
        if content[3001:] and ending == ".tar":
            continue  # a plain tar has no check sums for its contents, and tolerates a missing end
        with pytest.raises(DataError, match=r"veri\S* (is damaged|cannot be unpacked)"):
            unpack(archive, Heard())
        assert list(tmp_path.iterdir()) == [archive]


def test_encrypted_zip(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "veri.zip", {"a.jpg": b"abc"})
    raw = bytearray(archive.read_bytes())
    raw[raw.index(b"PK\x03\x04") + 6] |= 1  # the flag, as in the local header ...
    raw[raw.index(b"PK\x01\x02") + 8] |= 1  # ... and in the directory
    archive.write_bytes(raw)
    with pytest.raises(DataError, match=r"is encrypted. Unpack it with its password"):
        unpack(archive, Heard())


def test_read_only_root_is_unpacked_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    with read_only_root(lambda root: write_archive(root / "veri.zip", GOOD)) as (root, home):
        monkeypatch.setenv("CALR_HOME", str(home))
        heard = Heard()
        target = unpack(root / "veri.zip", heard)
        assert target.parent == home / "unpacked"
        assert target.name.startswith("veri-")
        assert files_under(target) == GOOD
        assert unpack(root / "veri.zip", heard) == target
        assert len(heard.steps) == 1
