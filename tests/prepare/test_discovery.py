from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from calr_cli.errors import DataError
from calr_cli.prepare.datasets import LAYOUTS
from calr_cli.prepare.discovery import survey
from tests.support.made_up import FLAT, make_layout

ALL = [*((name, "V1") for name in FLAT), ("msmt17", "V1"), ("msmt17", "V2"), ("msmt17", "Market-like")]


def found(root: Path) -> list[tuple[str, str, Path]]:
    return [(place.layout.name, place.version.name, place.folder) for place in survey(root).places]


@pytest.mark.parametrize(("name", "version"), ALL)
@pytest.mark.parametrize(
    "place", ["canonical", "deeper", "shallower", "the dataset's", "the splits'", "nameless"]
)
def test_found_at_every_depth(name: str, version: str, place: str, tmp_path: Path) -> None:
    """The depth at which people keep a dataset is what they ask about most."""
    folder = make_layout(name, tmp_path / "data", identities=1, images_per_identity=4, version=version)
    root = tmp_path / "data"
    if place == "deeper":
        (root / "datasets").mkdir()
        folder.parent.rename(root / "datasets" / folder.parent.name)
        folder = root / "datasets" / folder.parent.name / folder.name
    elif place == "shallower":  # market1501/bounding_box_train
        folder.rename(root / "moved")
        folder.parent.rmdir()
        folder = (root / "moved").rename(folder.parent)
    elif place == "the dataset's":
        root = folder.parent
    elif place == "the splits'":
        root = folder
    elif place == "nameless":  # nothing but the content tells; V2's folders are its own
        folder = folder.rename(root / "x")
    expected = version if name == "msmt17" else LAYOUTS[name].versions[0].name
    assert found(root) == [(name, expected, folder)]


def test_all_together(tmp_path: Path) -> None:
    folders = {(name, make_layout(name, tmp_path, 1, 4, version=v)) for name, v in ALL if v != "Market-like"}
    assert {(name, folder) for name, _, folder in found(tmp_path)} == folders
    own = survey(tmp_path).of(LAYOUTS["msmt17"])
    assert [place.version.name for place in own] == ["V1", "V2"]  # the preferred one first


def test_a_name_and_the_contents_that_contradict_it(tmp_path: Path) -> None:
    """Folders of Market-1501 and DukeMTMC-reID are called alike, and a user may be called Duke."""
    folder = make_layout("market1501", tmp_path / "old", 1, 4)
    (tmp_path / "data").mkdir()
    folder = folder.rename(tmp_path / "data" / "duke")
    assert [name for name, _, _ in found(tmp_path / "data")] == ["market1501"]
    for image in folder.rglob("*.jpg"):
        image.rename(image.with_name(f"x{image.name}"))
    assert [name for name, _, _ in found(tmp_path / "data")] == ["dukemtmcreid"]  # nothing but the name tells


def test_rubbish_is_not_entered(tmp_path: Path) -> None:
    folder = make_layout("veri", tmp_path, 1, 4)
    for rubbish in ("__MACOSX", ".trash"):
        shutil.copytree(folder, tmp_path / rubbish / "VeRi")
    (tmp_path / "._veri.zip").touch()
    (tmp_path / "loop").symlink_to(tmp_path)  # goes no deeper than the depth we look
    (tmp_path / "elsewhere" / "train").mkdir(parents=True)  # a folder called train is not yet MSMT17
    assert {place[2].resolve() for place in found(tmp_path)} == {folder}
    assert [path.name for path in survey(tmp_path).archives] == []


def test_root_that_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"There is no folder {re.escape(str(tmp_path))}/x. Give the folder"):
        survey(tmp_path / "x")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="There is no folder"):
        survey(tmp_path / "file")
