"""The page in a real browser: by day, by night, and on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from calr_cli.events import SilentReporter
from calr_cli.report.page import SECTIONS, write_report
from calr_cli.report.record import read_runs
from tests.report.conftest import CPU, Trained
from tests.support.browser import CHROMIUM, look

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture
def page(trained: Trained, tmp_path: Path) -> Path:
    output = tmp_path / "report.html"
    write_report(read_runs([trained.inter.path]), output, CPU, None, SilentReporter())
    return output


def test_everything_is_seen_and_nothing_is_complained_of(page: Path, tmp_path: Path) -> None:
    day = look(page, tmp_path)
    night = look(page, tmp_path, dark=True)
    phone = look(page, tmp_path, width=360)
    for seen in (day, night, phone):
        assert seen.console == []
        assert seen.told["images"] > 30
        assert seen.told["broken"] == 0
        assert seen.told["seen"] == [f"run0-{key}" for key, _ in SECTIONS]
        assert seen.told["overflow"] <= 0, "the page is wider than the screen"
        assert seen.told["clipped"] == []
    assert (day.told["background"], night.told["background"]) == ("rgb(243, 244, 247)", "rgb(15, 18, 23)")


def test_a_broken_page_would_be_noticed(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8").replace(
        "data:image/jpeg;base64,/9j/", "data:image/jpeg;base64,AAAA"
    )
    broken = '<script>console.error("x")</script><div style="width: 3000px; height: 1px"></div></body>'
    page.write_text(text.replace("</body>", broken), encoding="utf-8")
    seen = look(page, tmp_path)
    assert seen.told["broken"] == seen.told["images"]
    assert seen.told["overflow"] > 0
    assert any('"x"' in line for line in seen.console)
