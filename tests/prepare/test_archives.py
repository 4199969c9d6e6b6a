from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calr_cli.errors import DataError
from calr_cli.prepare import archives
from calr_cli.prepare.archives import HOSTILE, Archive, is_archive
from tests.support.heard import Heard
from tests.support.packed import write_archive

GOOD = {"VeRi/image_train/a.jpg": b"a" * 5000, "VeRi/list.txt": b"list"}
RUBBISH = {
    "__MACOSX/VeRi/._a.jpg": b"x",
    "VeRi/._a.jpg": b"x",
    "VeRi/Thumbs.db": b"x",
    "VeRi/.DS_Store": b"x",
}
ENDINGS = [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"]


def contents(path: Path) -> dict[str, bytes]:
    with Archive(path, Heard()) as opened:
        opened.check_members()
        return {"/".join(m.parts): b"".join(opened.content(m)) for m in opened.members}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("renamed", [False, True])
def test_reads_what_is_there_but_for_rubbish(ending: str, renamed: bool, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / f"VeRi.v1{ending}", GOOD | RUBBISH)
    assert is_archive(archive.name)
    if renamed:  # whatever a browser called it
        archive = archive.rename(tmp_path / "download(1)")
        assert not is_archive(archive.name)
    assert contents(archive) == GOOD
    with Archive(archive, Heard()) as opened:
        assert opened.size == 5004
        assert opened.holds_folder({"image_train", "train"})
        assert not opened.holds_folder({"train", "a.jpg"})
        assert not opened.holds_archive()


@pytest.mark.parametrize(
    "name",
    ["../evil.jpg", "VeRi/../../evil.jpg", "/tmp/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg", "\\evil.jpg"],
)
@pytest.mark.parametrize("ending", [".zip", ".tar"])
def test_paths_that_lead_out_are_refused(ending: str, name: str, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / f"veri{ending}", GOOD | {name: b"evil"})
    with pytest.raises(DataError) as error:
        contents(archive)
    assert error.value.lines() == [f"{archive}: '{name}' would be written outside of its folder. {HOSTILE}"]


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    """A link to / followed by a file below it writes anywhere."""
    link = zipfile.ZipInfo("VeRi/out")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "veri.zip", "w") as archive:
        archive.writestr(link, "/")
        archive.writestr("VeRi/out/evil.jpg", b"evil")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE):
        with tarfile.open(tmp_path / f"veri{kind.decode()}.tar", "w") as tar:
            info = tarfile.TarInfo("VeRi/out")
            info.type, info.linkname = kind, "/"
            tar.addfile(info)
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 6
    for path in paths:
        with pytest.raises(DataError, match=r"'VeRi/out' is a link or device, not a file"):
            contents(path)


@pytest.mark.parametrize("ending", [".zip", ".tar.gz", ".tar"])
def test_damage_is_noticed(ending: str, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / f"veri{ending}", {**GOOD, "VeRi/b.jpg": os.urandom(100_000)})
    whole = archive.read_bytes()
    broken = [whole[: len(whole) // 2], b"", b"not an archive at all", b"<html>quota</html>" * 99, b"PK"]
    if ending == ".tar":  # has check sums for its headers only
        start = whole.index(b"VeRi/b.jpg")
        broken += [whole[:start] + b"?" + whole[start + 1 :], whole[:start]]
    else:
        broken.append(whole[:3000] + bytes([whole[3000] ^ 255]) + whole[3001:])
    for content in broken:
        archive.write_bytes(content)
        with pytest.raises(DataError, match=r"veri\S* (is damaged, or neither a zip nor|cannot be unpacked)"):
            contents(archive)


def test_encrypted_zip(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "veri.zip", {"a.jpg": b"abc"})
    raw = bytearray(archive.read_bytes())
    raw[raw.index(b"PK\x03\x04") + 6] |= 1  # the flag, as in the local header ...
    raw[raw.index(b"PK\x01\x02") + 8] |= 1  # ... and in the directory
    archive.write_bytes(raw)
    with pytest.raises(DataError, match=r"is encrypted. Unpack it with its password"):
        contents(archive)


def lying_zip(path: Path, content: bytes, size: int) -> Path:
    """A zip whose directory and local header say that its only file has ``size`` bytes."""
    raw = bytearray(write_archive(path, {"a.jpg": content}).read_bytes())
    struct.pack_into("<I", raw, raw.index(b"PK\x03\x04") + 22, size)
    struct.pack_into("<I", raw, raw.index(b"PK\x01\x02") + 24, size)
    path.write_bytes(raw)
    return path


def test_a_size_that_is_not_true(tmp_path: Path) -> None:
    """No more is ever written than was said, and checked against the disk, before."""
    archive = lying_zip(tmp_path / "veri.zip", bytes(10**6), 10)
    with Archive(archive, Heard()) as opened:
        pieces = opened.content(opened.members[0])
        with pytest.raises(DataError, match="is damaged"):
            assert sum(len(piece) for piece in pieces) <= 10
    archive = lying_zip(tmp_path / "veri.zip", b"abc", 10)
    with pytest.raises(DataError, match="is damaged"):
        contents(archive)


def test_a_file_without_a_name(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "veri.zip", {"a": b"abc"})
    archive.write_bytes(archive.read_bytes().replace(b"a", b"\0"))
    with pytest.raises(DataError, match=r"is damaged|would be written outside"):
        contents(archive)


TOO_MUCH = "would become far larger than an archive of images does"


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "HARMLESS", 10**6)
    monkeypatch.setattr(archives, "LONGEST_READ", 10**5)
    monkeypatch.setattr(archives, "MOST_FILES", 1000)


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("ending", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_bombs_of_zeros(ending: str, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / f"veri{ending}", {f"{n}.jpg": bytes(10**6) for n in range(20)})
    assert archive.stat().st_size < 50_000
    with pytest.raises(DataError, match=TOO_MUCH):
        Archive(archive, Heard())


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_bombs_of_many_files(ending: str, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / f"veri{ending}", {f"{n}.jpg": b"" for n in range(1001)})
    with pytest.raises(DataError, match=TOO_MUCH):
        Archive(archive, Heard())


@pytest.mark.usefixtures("small_limits")
def test_bombs_beside_the_files(tmp_path: Path) -> None:
    """Headers that tarfile reads into memory, folders without end, and zeros after the end mark."""
    header = tarfile.TarInfo("PaxHeaders/a")
    header.type, header.size = tarfile.XHDTYPE, 10**6
    folder = tarfile.TarInfo("f")
    folder.type = tarfile.DIRTYPE
    good = io.BytesIO()
    with tarfile.open(fileobj=good, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    for content in (header.tobuf() + bytes(10**6), folder.tobuf() * 1001, good.getvalue() + bytes(10**7)):
        (tmp_path / "veri.tar.gz").write_bytes(gzip.compress(content))
        with pytest.raises(DataError, match=TOO_MUCH):
            Archive(tmp_path / "veri.tar.gz", Heard())


def test_a_sparse_bomb(tmp_path: Path) -> None:
    """A file of 8 GiB that takes no place in the archive."""
    info = tarfile.TarInfo("a.jpg")
    info.type = tarfile.GNUTYPE_SPARSE
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    raw[483:495] = b"100000000000"  # the real size
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    (tmp_path / "veri.tar").write_bytes(raw + bytes(1024))
    with pytest.raises(DataError, match=TOO_MUCH):
        Archive(tmp_path / "veri.tar", Heard())


BASES = ["zip", "tar", "tar.gz"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("bases")
    long = {**GOOD, "VeRi/" + "deep/" * 40 + "é.jpg": b"b"}  # needs a header of its own in a tar
    return {base: write_archive(folder / f"veri.{base}", long).read_bytes() for base in BASES}


@given(
    st.sampled_from(BASES),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=12)), max_size=6),
    st.floats(0, 1),
)
def test_damage_of_any_kind_is_an_error_of_ours(
    bases: dict[str, bytes], base: str, changes: list[tuple[float, bytes]], end: float
) -> None:
    content = bytearray(bases[base])
    for place, change in changes:
        start = int(place * len(content))
        content[start : start + len(change)] = change
    if end < 0.3:
        del content[int(end / 0.3 * len(content)) :]
    path = Path(os.environ["CALR_HOME"]).parent / "fuzzed"
    path.write_bytes(content)
    with suppress(DataError):  # any other exception fails this test
        contents(path)
