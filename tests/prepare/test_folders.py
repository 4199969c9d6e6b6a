from __future__ import annotations

import os
from pathlib import Path

import pytest

from calr_cli.prepare.datasets.folders import find_images
from tests.support.read_only import read_only_root


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_what_is_listed_and_what_is_passed_over(tmp_path: Path) -> None:
    wanted = ["B.JPG", "a.jpeg", "cam 1/x.tiff", "cam 1/y/z/1.webp", "pictures.jpg/2.bmp"]
    junk = ["._a.jpg", "a.txt", "Thumbs.db", ".hidden/a.jpg", "__MACOSX/a.jpg", "jpg"]
    touch(*(tmp_path / name for name in (*wanted, *junk)))
    assert find_images(tmp_path) == (wanted, [])


def test_links_are_followed(tmp_path: Path) -> None:
    """To a disk with room for the images, to the images that make up a split."""
    touch(tmp_path / "disk/7/a.png", tmp_path / "disk/b.png", tmp_path / "images/c.png")
    (tmp_path / "images/cam1").symlink_to(tmp_path / "disk/7")
    (tmp_path / "images/d.png").symlink_to(tmp_path / "disk/b.png")
    (tmp_path / "images/e.png").symlink_to("c.png")  # the same image, by its other name
    assert find_images(tmp_path / "images") == (["c.png", "cam1/a.png", "d.png", "e.png"], [])


def test_no_folder_is_listed_twice(tmp_path: Path) -> None:
    """The real name counts, though the link comes first; of two links, the first."""
    touch(tmp_path / "x/cam2/a.png", tmp_path / "disk/b.png")
    (tmp_path / "x/cam1").symlink_to("cam2")
    (tmp_path / "x/other").symlink_to(tmp_path / "disk")
    (tmp_path / "x/more").symlink_to(tmp_path / "disk")
    paths, warnings = find_images(tmp_path / "x")
    assert paths == ["cam2/a.png", "more/b.png"]
    assert warnings == [
        f"{tmp_path / 'x'}: 2 link(s) not followed, the folders that they lead to are listed already: "
        "cam1, other"
    ]


def test_circles_end(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    touch(folder / "a/1.png", folder / "b/2.png", tmp_path / "outside.png")
    (folder / "a/b").symlink_to(folder / "b")
    (folder / "b/a").symlink_to("../a")
    (folder / "a/self").symlink_to(".")
    (folder / "up").symlink_to(tmp_path)
    paths, warnings = find_images(folder)
    assert paths == ["a/1.png", "b/2.png"]
    (text,) = warnings
    assert text.endswith(": a/b, a/self, b/a, up")


def test_broken_links_are_named(tmp_path: Path) -> None:
    """A disk that is not mounted must not go unnoticed."""
    touch(tmp_path / "a.png")
    (tmp_path / "cam1").symlink_to("/nowhere")
    (tmp_path / "cam2").symlink_to("cam2")
    (tmp_path / "b.png").symlink_to("c.png")
    broken = "b.png (broken link), cam1 (broken link), cam2 (broken link)"
    assert find_images(tmp_path) == (["a.png"], [f"{tmp_path}: left out, cannot be read: {broken}"])


def test_folders_closed_to_the_user_are_named() -> None:
    def fill(root: Path) -> None:
        touch(root / "a.png", root / "closed/b.png")

    with read_only_root(fill) as (root, _):
        user = os.geteuid()
        os.seteuid(os.getuid())
        (root / "closed").chmod(0)
        os.seteuid(user)
        try:
            assert find_images(root) == (
                ["a.png"],
                [f"{root}: left out, cannot be read: closed (Permission denied)"],
            )
        finally:
            os.seteuid(os.getuid())
            (root / "closed").chmod(0o755)
            os.seteuid(user)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such thing here")
def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert find_images(tmp_path) == ([], [])
