from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from calr_cli.errors import ConfigError, DataError
from calr_cli.prepare.own_images import prepare_own_images
from calr_cli.prepare.prepared import load_dataset
from calr_cli.prepare.published import prepare_datasets
from tests.support.heard import Heard
from tests.support.made_up import make_layout
from tests.support.read_only import read_only_root


def test_not_prepared(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load_dataset("veri")
    assert error.value.lines() == ["veri is not prepared. Run `calr prepare-data --root DIR` first"]
    make_layout("market1501", tmp_path)
    prepare_datasets(tmp_path, Heard())
    with pytest.raises(DataError, match=f"Run `calr prepare-data --root {tmp_path}` first"):
        load_dataset("veri")
    with pytest.raises(ConfigError, match="There is no dataset 'mars'"):
        load_dataset("mars")


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_another_root_is_prepared_first(by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_layout("veri", tmp_path / "one", identities=4)
    make_layout("veri", tmp_path / "two", identities=6)
    prepare_datasets(tmp_path / "one", Heard())
    root = tmp_path / "two" if by == "argument" else None
    if by == "environment":
        monkeypatch.setenv("CALR_DATA", str(tmp_path / "two"))
    heard = Heard()
    assert len(load_dataset("veri", root, heard).train) == 36
    assert heard.notes == [f"Preparing veri from {tmp_path / 'two'}"]
    heard = Heard()
    assert len(load_dataset("veri", root, heard).train) == 36
    assert heard.notes == []
    monkeypatch.delenv("CALR_DATA", raising=False)
    assert len(load_dataset("veri", tmp_path / "one").train) == 24


def test_root_given_for_a_dataset_prepared_from_below_it(tmp_path: Path) -> None:
    folder = make_layout("veri", tmp_path)
    prepare_datasets(folder, Heard())
    heard = Heard()
    load_dataset("veri", tmp_path, heard)
    assert heard.notes == []


def test_archive_of_a_read_only_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images are unpacked elsewhere, yet it is prepared from that root and not again."""
    make_layout("veri", tmp_path / "made")
    with read_only_root(lambda root: shutil.make_archive(str(root / "veri"), "zip", tmp_path / "made")) as (
        root,
        home,
    ):
        monkeypatch.setenv("CALR_HOME", str(home))
        (card,) = prepare_datasets(root, Heard())
        assert card.root.is_relative_to(home / "unpacked")
        heard = Heard()
        assert len(load_dataset("veri", root, heard).train) == 48
        assert heard.steps == heard.notes == []


def test_own_dataset_has_no_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_layout("veri", tmp_path)
    prepare_own_images(folder, "mine", r"c(?P<camid>\d+)_", None, 1, Heard())
    heard = Heard()
    monkeypatch.setenv("CALR_DATA", "/nowhere")
    assert len(load_dataset("mine", None, heard).train) == 72
    assert heard.notes == []
    load_dataset("mine", tmp_path, heard)
    assert heard.notes == [f"mine is not looked for under a root: {tmp_path} is not used"]
