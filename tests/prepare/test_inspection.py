from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from calr_cli.prepare import inspection
from calr_cli.prepare.inspection import inspect_image, inspect_images
from tests.support.heard import Heard
from tests.support.made_up import write_image


def test_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", 1)
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    write_image(tmp_path / "c.jpg", 2)
    digests = [found.digest for found in inspect_images([tmp_path / f"{n}.jpg" for n in "abc"], "x", Heard())]
    assert digests[0] == digests[1] != digests[2]
    assert digests[0] == blake2b((tmp_path / "a.jpg").read_bytes(), digest_size=16).hexdigest()
    assert len(digests[0]) == 32


def spoil(path: Path, how: str) -> None:
    write_image(path, 1)
    content = path.read_bytes()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("this is not an image")
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "header only":
        path.write_bytes(content[:20])
    elif how == "absent":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif"])
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("empty", "empty file"),
        ("text", "not an image"),
        ("truncated", "damaged: "),
        ("header only", ""),
        ("absent", "no such file or directory"),
        ("folder", "is a directory"),
    ],
)
def test_unreadable_images(suffix: str, how: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    spoil(path, how)
    found = inspect_image(path)
    if suffix not in {".webp", ".tif"} or how != "truncated":  # these cannot tell damage from nonsense
        assert found.problem.startswith(reason)
    assert found.problem
    assert (found.digest, found.width, found.height) == ("", 0, 0)


def test_odd_but_whole_images_pass_without_a_warning(tmp_path: Path) -> None:
    Image.new("CMYK", (4, 4)).save(tmp_path / "a.jpg")
    Image.new("I;16", (4, 4)).save(tmp_path / "b.png")
    Image.new("P", (4, 4)).save(tmp_path / "c.png", transparency=b"\x00\x01")
    paths = [tmp_path / name for name in ("a.jpg", "b.png", "c.png")]
    assert [found.problem for found in inspect_images(paths, "x", Heard())] == ["", "", ""]


def test_the_size_is_that_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg")
    Image.new("RGB", (40, 20)).save(tmp_path / "b.jpg", exif=exif)
    found = inspect_images([tmp_path / "a.jpg", tmp_path / "b.jpg"], "x", Heard())
    assert [(each.width, each.height) for each in found] == [(40, 20), (20, 40)]


def test_what_cannot_be_trained_on_is_not_passed(tmp_path: Path) -> None:
    """The check decodes as training does, to the colours."""
    Image.new("F", (4, 4)).save(tmp_path / "a.tif")
    assert inspect_image(tmp_path / "a.tif").problem.startswith("its pixels (F) are neither grey nor")


def test_many_images_stay_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "_AT_A_TIME", 3)
    paths = [tmp_path / f"{n}.png" for n in range(10)]
    for n, path in enumerate(paths):
        Image.new("L", (n + 1, 1)).save(path)
    assert [found.width for found in inspect_images(paths, "x", Heard())] == list(range(1, 11))
