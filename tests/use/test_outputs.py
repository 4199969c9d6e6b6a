"""Nothing is written where something would be lost, and that is known before the work."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from calr_cli.errors import ConfigError
from calr_cli.files import atomic_write, require_writable
from calr_cli.use.outputs import PAGES, check_output
from tests.support.read_only import read_only_root


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def test_a_new_file_and_one_of_the_same_kind() -> None:
    check_output("--html", Path("deep/er/p.html"), PAGES, ["photos", "no.pth"])
    assert not Path("deep").exists()  # asking makes nothing
    Path("p.HTML").write_text("of yesterday")
    check_output("--html", Path("p.HTML"), PAGES)
    assert sorted(path.name for path in Path().iterdir()) == ["p.HTML"]


def test_another_kind_of_file() -> None:
    for name in ("photo.png", "model.pth", "page", "x.html.bak"):
        with pytest.raises(ConfigError, match=r"^--html .*: the name must end in \.html, \.htm$"):
            check_output("--html", Path(name), PAGES)


@pytest.mark.parametrize("how", ["the same", "another path", "a hard link", "a link", "a link to the output"])
def test_an_input_by_whatever_name(how: str) -> None:
    source, output = Path("list.csv"), Path("out.csv")
    source.write_text("path,shop\n")
    if how == "the same":
        output = source
    elif how == "another path":
        output = Path("../") / Path.cwd().name / source
    elif how == "a hard link":
        os.link(source, output)
    elif how == "a link":
        output.symlink_to(source)
    else:
        source.rename(output)
        source.symlink_to(output)
    with pytest.raises(
        ConfigError, match=r"is what the command reads \(list\.csv\): it would be overwritten"
    ):
        check_output("--output", output, (".csv",), ["photos", source])


def test_what_a_link_leads_to_counts() -> None:
    Path("model.pth").write_text("a model")
    Path("p.html").symlink_to("model.pth")
    with pytest.raises(ConfigError, match=r"^--html p\.html, a link to .*/model\.pth: the name must end in"):
        check_output("--html", Path("p.html"), PAGES)
    Path("loop.html").symlink_to("loop.html")
    with pytest.raises(ConfigError, match=r"^--html loop\.html cannot be written: Too many levels"):
        check_output("--html", Path("loop.html"), PAGES)


def test_a_folder_and_a_folder_that_is_none() -> None:
    Path("site.html").mkdir()
    with pytest.raises(ConfigError, match=r"^--html site\.html is a folder\. Give the name of a file$"):
        check_output("--html", Path("site.html"), PAGES)
    Path("file").write_text("")
    with pytest.raises(ConfigError, match=r"^--html file/p\.html cannot be written: Not a directory \(in "):
        check_output("--html", Path("file/p.html"), PAGES)
    with pytest.raises(ConfigError, match=r"cannot be written: File name too long"):
        check_output("--html", Path("x" * 300 + ".html"), PAGES)


def test_a_folder_that_cannot_be_written() -> None:
    with read_only_root(lambda root: (root / "old.html").write_text("old")) as (root, home):
        for path in (root / "p.html", root / "deep" / "p.html", root / "old.html"):
            with pytest.raises(ConfigError, match=rf"cannot be written: Permission denied \(in {root}\)$"):
                check_output("--html", path, PAGES)
            with pytest.raises(OSError, match=r"Permission denied") as raised:
                write(path, "new")
            assert Path(raised.value.filename) in (path, path.parent)  # never a temporary name
        (home / "p.html").symlink_to(root / "p.html")
        with pytest.raises(ConfigError, match="Permission denied"):
            check_output("--html", home / "p.html", PAGES)
        assert [path.name for path in root.iterdir()] == ["old.html"]


def test_a_name_of_full_length_can_be_written() -> None:
    path = Path("x" * 250 + ".html")
    check_output("--html", path, PAGES)
    write(path, "a page")
    assert path.read_text() == "a page"


def test_a_link_is_followed() -> None:
    """What it leads to is replaced, whole or not at all; a link to nothing makes it."""
    Path("far").mkdir()
    Path("far/p.html").write_text("old")
    for target in ("far/p.html", "far/new.html"):
        Path("p.html").unlink(missing_ok=True)
        Path("p.html").symlink_to(target)
        check_output("--html", Path("p.html"), PAGES)
        write(Path("p.html"), "new")
        assert Path("p.html").is_symlink()
        assert Path(target).read_text() == "new"
    assert sorted(path.name for path in Path("far").iterdir()) == ["new.html", "p.html"]


def test_a_hard_link_to_something_else_stays() -> None:
    Path("a").write_text("old")
    os.link("a", "p.html")
    write(Path("p.html"), "new")
    assert (Path("a").read_text(), Path("p.html").read_text()) == ("old", "new")


def test_a_pipe_is_written_through() -> None:
    os.mkfifo("pipe")
    check_output("--html", Path("pipe"), PAGES)
    heard: list[str] = []
    reader = threading.Thread(target=lambda: heard.append(Path("pipe").read_text()))
    reader.start()
    write(Path("pipe"), "a page")
    reader.join()
    assert heard == ["a page"]
    assert stat.S_ISFIFO(Path("pipe").stat().st_mode)
    assert [path.name for path in Path().iterdir()] == ["pipe"]


def test_a_device_stays_one() -> None:
    check_output("--html", Path(os.devnull), PAGES)
    try:
        os.mknod("null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        Path("null").write_text("")
    except PermissionError:
        pytest.skip("only root makes devices")
    check_output("--html", Path("null"), PAGES)
    write(Path("null"), "a page")
    assert stat.S_ISCHR(Path("null").stat().st_mode)


@pytest.mark.parametrize("kind", ["a file", "a pipe"])
def test_standard_output(kind: str) -> None:
    """Where the shell sends it to a file, the file must not be replaced behind the shell's back."""
    code = (
        "from pathlib import Path; from calr_cli.files import atomic_write; print('before', flush=True)\n"
        "with atomic_write(Path('/dev/stdout')) as t: t.write_text('a page\\n')\n"
    )
    command = [sys.executable, "-c", code]
    if kind == "a pipe":
        assert (
            subprocess.run(command, capture_output=True, text=True, check=True).stdout == "before\na page\n"
        )
        return
    with Path("out").open("w") as out:
        subprocess.run(command, stdout=out, check=True)
    assert Path("out").read_text() == "before\na page\n"


def test_a_run_folder_to_be_made() -> None:
    with read_only_root(lambda root: None) as (root, _), pytest.raises(OSError, match="Permission denied"):
        require_writable(root / "runs" / "one")
    require_writable(Path("runs/one"))
    assert not Path("runs").exists()
