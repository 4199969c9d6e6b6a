"""Downloading: what only ever met a server on this machine that stands in for Google Drive."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from calr_cli.errors import DataError
from calr_cli.prepare import acquisition, discovery
from calr_cli.prepare import published as prepare
from calr_cli.prepare.datasets import LAYOUTS
from calr_cli.prepare.published import prepare_datasets
from tests.support.heard import Heard
from tests.support.made_up import make_layout
from tests.support.site import (
    QUOTA_PAGE,
    Reply,
    Site,
    page,
    question_page,
    ranges,
    running_site,
    stand_in_for_drive,
    status,
    whole,
)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr("calr_cli.downloads.sleep", lambda seconds: None)
    monkeypatch.setattr("calr_cli.web.CHUNK_BYTES", 500)  # so that some pieces arrive of a small archive
    with running_site() as site:
        stand_in_for_drive(site, monkeypatch)
        yield site


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A made-up Market-1501 that stands in for the real one, whose MD5 it cannot have."""
    make_layout("market1501", tmp_path / "made")
    path = Path(shutil.make_archive(str(tmp_path / "made" / "x"), "zip", tmp_path / "made" / "market1501"))
    market = LAYOUTS["market1501"]
    assert market.download is not None
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    made_up = replace(market, download=replace(market.download, md5=md5))
    for module in (acquisition, discovery, prepare):
        monkeypatch.setattr(module, "LAYOUTS", {**LAYOUTS, "market1501": made_up})
    return path.read_bytes()


def test_what_is_open_to_all_is_fetched_unpacked_and_prepared(
    site: Site, archive: bytes, tmp_path: Path
) -> None:
    drive_id = "0B8-rUzbwVRk0c054eEozWG9COHM"
    site.put("/uc", page(question_page(f"{site.address}/download", drive_id)))
    site.put("/download", ranges(archive, ends=1000), ranges(archive))
    heard = Heard()
    root = tmp_path / "root"
    (card,) = prepare_datasets(root, heard, download=True)
    assert card.root == root / "market1501/Market-1501-v15.09.15"
    assert card.splits["train"].images == 48
    assert f"id={drive_id}&resourcekey=0-8nyl7K9_x37HlQm34MmrYQ" in site.asked[0][0]
    assert [asked for path, asked in site.asked if path.startswith("/download")] == [None, "bytes=1000-"]
    assert any("on request" in note for note in heard.notes)  # of the others
    assert not any("DukeMTMC" in path for path, _ in site.asked)
    asked = len(site.asked)
    assert prepare_datasets(root, Heard(), download=True) == [card]
    assert len(site.asked) == asked


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (page(QUOTA_PAGE), "Too many users have viewed or downloaded"),
        (status(404), "404"),
        (whole(b"PK another file"), "wrong md5"),
        (status(503), "503"),
    ],
    ids=["quota", "gone", "another file", "busy"],
)
def test_a_download_that_fails_is_one_line_and_leaves_nothing(
    site: Site, archive: bytes, tmp_path: Path, answer: Reply, problem: str
) -> None:
    site.put("/uc", answer)
    make_layout("veri", tmp_path / "root")
    with pytest.raises(DataError) as error:
        prepare_datasets(tmp_path / "root", Heard(), download=True)
    (line,) = error.value.lines()
    assert problem in line
    assert line.endswith("Fetch it with a browser, then give the file: --archive FILE")
    assert not list((tmp_path / "root").rglob("*.zip"))
    assert prepare.remembered_root() == tmp_path / "root"  # VeRi-776 is prepared all the same
    site.put("/uc", ranges(archive))
    cards = prepare_datasets(tmp_path / "root", Heard(), download=True)
    assert [card.name for card in cards] == ["market1501", "veri"]
