from __future__ import annotations

import dataclasses
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
@pytest.mark.parametrize("place", ["canonical", "deeper", "shallower", "the dataset's", "the splits'"])
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
    expected = version if name == "msmt17" else LAYOUTS[name].versions[0].name
    assert found(root) == [(name, expected, folder)]


def test_all_together(tmp_path: Path) -> None:
    folders = {(name, make_layout(name, tmp_path, 1, 4, version=v)) for name, v in ALL if v != "Market-like"}
    assert {(name, folder) for name, _, folder in found(tmp_path)} == folders
    own = survey(tmp_path).of(LAYOUTS["msmt17"])
    assert [place.version.name for place in own] == ["V1", "V2"]  # the preferred one first


@pytest.mark.parametrize(("name", "version"), ALL)
def test_a_folder_without_the_name_is_not_taken(name: str, version: str, tmp_path: Path) -> None:
    """People lay their own images out like Market-1501, since other programs want it."""
    (tmp_path / "shop").mkdir()
    folder = make_layout(name, tmp_path / "made", 1, 4, version=version).rename(tmp_path / "shop" / "x")
    seen = survey(tmp_path / "shop")
    assert seen.places == []
    (lookalike,) = seen.lookalikes
    assert (lookalike.layout.name, lookalike.folder) == (name, folder)
    assert f"If they are your own: --images {folder} --pattern REGEX" in lookalike.not_taken


def official(monkeypatch: pytest.MonkeyPatch, name: str, images: tuple[int, int, int]) -> None:
    """Let a made-up dataset have the official counts."""
    counts = dataclasses.replace(LAYOUTS[name].official, images=images)
    monkeypatch.setitem(LAYOUTS, name, dataclasses.replace(LAYOUTS[name], official=counts))


@pytest.mark.parametrize(("name", "version"), ALL)
def test_a_folder_without_the_name_and_with_the_official_counts(
    name: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_layout(name, tmp_path / "made", 1, 4, version=version).rename(tmp_path / "made" / "x")
    official(monkeypatch, name, (4, 6, 2))
    assert [(place, where) for place, _, where in found(tmp_path / "made")] == [(name, folder)]


def test_of_several_the_one_with_the_official_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the preferred version nor the nearer folder is a reason to take something else."""
    shutil.move(make_layout("msmt17", tmp_path / "1", 2, 4, version="Market-like"), tmp_path / "msmt17-np")
    whole = make_layout("msmt17", tmp_path / "data", 1, 4, version="V2")
    official(monkeypatch, "msmt17", (4, 6, 2))
    assert [place.version.name for place in survey(tmp_path).of(LAYOUTS["msmt17"])] == ["V2", "Market-like"]
    (tmp_path / "duke-part").mkdir()
    shutil.move(make_layout("dukemtmcreid", tmp_path / "2", 2, 4), tmp_path / "duke-part")
    duke = make_layout("dukemtmcreid", tmp_path / "data", 1, 4)
    official(monkeypatch, "dukemtmcreid", (4, 6, 2))
    assert survey(tmp_path).of(LAYOUTS["dukemtmcreid"])[0].folder == duke
    assert survey(tmp_path).of(LAYOUTS["msmt17"])[0].folder == whole


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("dukemtmcreid", "Occluded_Duke"),
        ("dukemtmcreid", "Occluded-DukeMTMC-reID"),
        ("dukemtmcreid", "P-DukeMTMC-reID"),
        ("market1501", "supermarket"),
        ("market1501", "Occluded-Market"),
        ("msmt17", "shop"),
    ],
)
def test_what_others_made_of_a_dataset_is_not_the_dataset(name: str, folder: str, tmp_path: Path) -> None:
    made = make_layout(name, tmp_path / "made", 1, 4, version="Market-like")
    real = make_layout(name, tmp_path / "data" / "deeper", 1, 4, version="V2")
    shutil.move(made, tmp_path / "data" / folder)
    seen = survey(tmp_path / "data")
    assert [place.folder for place in seen.places] == [real]
    assert [place.folder for place in seen.lookalikes] == [tmp_path / "data" / folder]


def test_a_name_and_the_contents_that_contradict_it(tmp_path: Path) -> None:
    """Folders of Market-1501 and DukeMTMC-reID are called alike, and a user may be called Duke."""
    folder = make_layout("market1501", tmp_path / "old", 1, 4)
    (tmp_path / "data").mkdir()
    folder = folder.rename(tmp_path / "data" / "duke")
    assert [place.layout.name for place in survey(tmp_path / "data").lookalikes] == ["market1501"]
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
