"""The page of ``calr search --html``: by day, by night, on a phone; what it says without colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from calr_cli.report import search_page as module
from calr_cli.report.search_page import search_page
from tests.report.test_page import colours, luminance
from tests.support.browser import CHROMIUM, look

TEMPLATE = Path(module.__file__).parent / "templates" / "search.html"


def result(folder: Path) -> dict[str, Any]:
    """A query and what was found for it: a tall image, a wide one, one without verdict, one that is gone."""
    names = [f"a-gallery-with-a-name-as-long-as-this/{n:030d}.png" for n in range(4)]
    for name, size in zip(names, [(48, 128), (240, 90), (30, 30)], strict=False):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", size, "gray").save(folder / name)
    found = [
        {"rank": rank, "path": str(folder / name), "similarity": 0.5, "probability": 0.5, "same": same}
        for rank, (name, same) in enumerate(zip(names, (True, False, None, False), strict=True), start=1)
    ]
    query = {"query": str(folder / names[1]), "unknown": False, "results": found}
    told = {"gallery": "photos", "images": 4, "model": "model.pth", "threshold": 0.6, "prior": 0.01}
    return {**told, "calibration": "from identities of veri", "queries": [query]}


def test_a_verdict_is_said_and_not_only_coloured(tmp_path: Path) -> None:
    items = search_page(result(tmp_path)).split("<li")[2:]
    said = [("<div>same</div>" in item, "<div>below the threshold</div>" in item) for item in items]
    assert said == [(True, False), (False, True), (False, False), (False, True)]
    frames = [item.partition(">")[0].strip() for item in items]
    assert frames == ['class="same"', 'class="below"', "", 'class="below"']
    assert [item.count("aria-label=") for item in items] == [1, 1, 1, 0]
    assert "no image here" in items[3]


def test_a_picture_is_there_once_however_often_it_is_shown(tmp_path: Path) -> None:
    """Of 50 queries with the same answers; also if it is there under two names."""
    told = result(tmp_path)
    once = search_page(told)
    (query,) = told["queries"]
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(query["results"][0]["path"]).read_bytes())
    more = [query] * 49 + [{**query, "query": str(copy)}]
    page = search_page({**told, "queries": more, "gallery": ["cam1", "cam2"]})
    assert page.count("data:image/jpeg") == once.count("data:image/jpeg") == 3
    assert page.count("<use ") == 50 * 4
    assert "Search in cam1, cam2" in page


@pytest.mark.parametrize("night", [False, True])
def test_text_and_frames_are_readable(night: bool) -> None:
    """Text 4.5 to 1, what else carries meaning 3 to 1: WCAG 2, AA."""
    found = colours(TEMPLATE.read_text(encoding="utf-8"))[night]
    for name, least in {"ink": 4.5, "faint": 4.5, "same": 3.0, "other": 3.0}.items():
        light, dark = sorted((luminance(found[name]), luminance(found["paper"])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= least, name


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_in_a_browser(tmp_path: Path) -> None:
    page = tmp_path / "found.html"
    page.write_text(search_page(result(tmp_path)), encoding="utf-8")
    day, night = look(page, tmp_path), look(page, tmp_path, dark=True)
    for seen in (day, night, look(page, tmp_path, width=360)):
        assert seen.console == []
        assert (seen.told["drawn"], seen.told["broken"]) == (4, 0)
        assert seen.told["overflow"] <= 0, "the page is wider than the screen"
    assert (day.told["background"], night.told["background"]) == ("rgb(255, 255, 255)", "rgb(22, 22, 22)")
