"""The whole page: of finished and unfinished runs, of several, with and without images and identities."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from calr_cli.data.manifest import manifest_path
from calr_cli.evaluation.calibration import Calibration, Reliability
from calr_cli.events import SilentReporter
from calr_cli.files import calr_home
from calr_cli.report.page import SECTIONS, write_report
from calr_cli.report.record import read_runs
from calr_cli.report.views import detail_for
from calr_cli.runs.folder import RunFolder
from calr_cli.training.checkpoint import load_model, save_model
from tests.report.conftest import CPU, Trained
from tests.support.page import Page

PARTS = {"ranked", "clusters", "maps", "camera_map", "pairs"}


def report(*runs: Path) -> tuple[Page, dict[str, str], str]:
    """The page, what the first run misses, and the HTML."""
    output = runs[0].parent / "out" / "report.html"
    result = write_report(read_runs(runs), output, CPU, None, SilentReporter())
    html = output.read_text(encoding="utf-8")
    assert result["bytes"] == output.stat().st_size < 10_000_000
    return Page.of(html), result["runs"][0]["missing"], html


def test_a_finished_run_has_every_section(trained: Trained) -> None:
    page, missing, html = report(trained.inter.path)
    assert missing == {}
    assert {f"run0-{key}" for key, _ in SECTIONS} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    anchors = {(link["href"] or "").removeprefix("#") for link in page.all("a")}
    assert anchors <= set(page.ids)
    images = page.all("img")
    assert len(images) > 9 * 4
    assert all(
        image["alt"] and (image["src"] or "").startswith("data:image/jpeg;base64,") for image in images
    )
    assert "finished after 3 of 3 epochs" in page.words
    assert "the labels that the model named above makes now" in page.words
    for tag, attributes in page.elements:
        outside = [v for k, v in attributes.items() if k in ("src", "href", "xlink:href") and v]
        assert all(value.startswith(("#", "data:")) for value in outside), (tag, attributes)
    assert not page.all("script")
    assert "url(http" not in html


def test_the_calibrated_threshold_is_drawn(trained: Trained, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "calibrated")
    shutil.copytree(trained.inter.path, run.path)
    assert "as likely the same as not" not in report(run.path)[2]
    encoder, card = load_model(run.model)
    fitted = Calibration(10, -6, "identities", "market1501", 20, 20, 2.0, Reliability((0.5,), (0.5,), (1.0,)))
    save_model(run.model, encoder, replace(card, calibration=fitted.to_dict()))
    page, _, html = report(run.path)
    words = "At 0.60 a pair is as likely the same as not (calibrated from identities of market1501)"
    assert words in page.words
    # Below the figure, for who cannot see it, and in its legend.
    assert html.count("as likely the same as not") == 3


def test_a_run_under_way_says_what_it_looks_at(unfinished: RunFolder) -> None:
    page, missing, _ = report(unfinished.path)
    assert missing == {}
    assert "not finished: 2 of 3 epochs so far" in page.words
    assert "last.pth, after 3 epochs" in page.words


def test_a_run_that_has_just_begun(unfinished: RunFolder) -> None:
    for file in (unfinished.last, unfinished.metrics, unfinished.state, unfinished.selected):
        file.unlink()
    page, missing, _ = report(unfinished.path)
    assert missing.keys() == PARTS
    assert missing["ranked"] == "There is no model yet: no epoch has ended."
    assert "No epoch has ended yet." in page.words
    assert not page.all("img")


def test_stage_1_shows_its_clusters_and_says_why_no_more(trained: Trained) -> None:
    page, missing, _ = report(trained.intra.path)
    assert missing.keys() == PARTS - {"clusters"}
    assert missing["ranked"].startswith("Stage 1 trains a network for each camera")
    assert "Local clusters" in page.words
    assert page.all("img")


def test_stage_1_with_one_network_is_not_said_to_train_one_per_camera(
    trained: Trained, tmp_path: Path
) -> None:
    """The sentence follows ``intra.network``, which the recipe plus sets to ``shared``."""
    run = RunFolder(tmp_path / "shared")
    shutil.copytree(trained.intra.path, run.path)
    intra = run.settings.intra.model_copy(update={"network": "shared"})
    run.write_settings(run.settings.model_copy(update={"intra": intra}))
    page, missing, _ = report(run.path)
    assert missing["ranked"].startswith("Stage 1 trains one network for all cameras")
    assert "a network for each camera" not in page.words


def test_without_local_labels_only_what_needs_them_is_missing(unfinished: RunFolder) -> None:
    unfinished.local_labels.unlink()
    page, missing, _ = report(unfinished.path)
    assert missing.keys() == {"clusters"}
    assert "local_labels.csv" in missing["clusters"]
    assert len([svg for svg in page.all("svg") if "by camera" in (svg["aria-label"] or "")]) == 1


def test_a_damaged_model_is_said(unfinished: RunFolder) -> None:
    unfinished.last.write_bytes(b"not a model")
    _, missing, _ = report(unfinished.path)
    assert missing.keys() == PARTS
    assert "last.pth" in missing["ranked"]


@pytest.fixture
def own_home(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder that may be spoiled."""
    home = tmp_path / "home"
    shutil.copytree(trained.home / "datasets", home / "datasets")
    monkeypatch.setenv("CALR_HOME", str(home))
    assert calr_home() == home
    return home


def test_without_the_dataset_curves_are_left(unfinished: RunFolder, own_home: Path) -> None:
    shutil.rmtree(own_home / "datasets")
    page, missing, _ = report(unfinished.path)
    assert missing.keys() == PARTS
    assert missing["maps"].startswith("market1501 is not prepared. Run")
    assert page.all("svg")


def test_without_identities_nothing_is_called_right_or_wrong(
    trained: Trained, unfinished: RunFolder, own_home: Path
) -> None:
    manifest = manifest_path("market1501")
    rows = manifest.read_text().splitlines()
    train = [re.sub(r",\d+,(\d+),", r",-1,\1,", row) for row in rows[1:] if row.startswith("train,")]
    manifest.write_text("\n".join([rows[0], *train]) + "\n")
    page, missing, _ = report(unfinished.path)
    assert missing.keys() == {"ranked", "camera_map", "pairs"}
    assert "Nothing to test on: market1501 has 0 query and 0 gallery images. " in missing["ranked"]
    assert "identities are not known, so nothing tells whether that was right" in page.words
    assert "% of one identity" not in page.words


def test_an_image_that_is_gone_costs_only_its_section(
    trained: Trained, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features come from stored pixels, thumbnails from the image files, which may have been moved since."""

    def gone(path: Path) -> Image.Image:
        from calr_cli.errors import DataError

        raise DataError(f"{path}: the image is gone")

    monkeypatch.setattr("calr_cli.report.thumbnails.open_image", gone)
    _, missing, _ = report(trained.inter.path)
    assert missing.keys() == {"ranked", "clusters"}


def test_several_runs_side_by_side(trained: Trained, unfinished: RunFolder) -> None:
    unfinished.write_settings(unfinished.settings.model_copy(update={"seed": 5}))
    page, _, _ = report(unfinished.path, trained.inter.path, trained.intra.path)
    assert len(page.ids) == len(set(page.ids))
    assert {"comparison", "comparison-curves", "comparison-queries", "run0", "run1", "run2"} <= set(page.ids)
    assert "seed 5 1 1" in page.words
    assert "inter ranks every query as well as unfinished does" in page.words
    assert "Stage 1 trains a network for each camera" in page.words


def test_many_runs_are_compared_without_their_images(trained: Trained, tmp_path: Path) -> None:
    assert detail_for(5).queries == 0
    runs = [tmp_path / f"run-{n}" for n in range(5)]
    for run in runs:
        shutil.copytree(trained.intra.path, run)
    page, missing, _ = report(*runs)
    assert missing["clusters"].startswith("Left out with so many runs")
    assert not page.all("img")


def test_whatever_comes_from_files_is_escaped(unfinished: RunFolder) -> None:
    named = RunFolder(unfinished.path.with_name("<script>alert(1)</script>".replace("/", "")))
    unfinished.path.rename(named.path)
    environment = named.read_environment()
    named.write_environment({**environment, "command": ["calr", '"><img src=x onerror=alert(1)>']})
    page, _, _ = report(named.path)
    assert not page.all("script")
    assert all("onerror" not in image for image in page.all("img"))
    assert "<script>alert(1)" in page.words


def colours(css: str) -> list[dict[str, str]]:
    """The page's colours by day and by night."""
    day, night = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", part)) for part in css.split("@media", 1))
    return [day, {**day, **{name: value for name, value in night.items() if name in day}}]


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("night", [False, True])
def test_text_and_curves_are_readable(night: bool) -> None:
    """4.5 to 1 is what WCAG 2 asks of text (AA); signs stand in the panel's colour on that of their frame."""
    css = Path("calr_cli/report/templates/style.css")
    text = (Path(__file__).parents[2] / css).read_text(encoding="utf-8")
    found = colours(text)[night]
    names = [name for name in found if name not in ("page", "panel", "faint")]
    assert len(names) == 15
    for name in names:
        for behind in ("panel", "page"):
            light, dark = sorted((luminance(found[name]), luminance(found[behind])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, behind)


def test_figures_that_are_none_or_absurd(unfinished: RunFolder) -> None:
    """Of a training that went wrong, or a file that somebody edited: the others are shown."""
    rows = unfinished.read_metrics()
    good = report(unfinished.path)[0].words
    rows[0]["loss"], rows[1]["loss"] = 1e308, -1e308
    rows[0]["criterion"] = float("nan")
    rows[0]["outliers"] = 10**400
    rows[0]["seconds"]["train"] = 1e308
    unfinished.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page, missing, html = report(unfinished.path)
    assert missing == {}
    assert "not finished: 2 of 3 epochs so far" in page.words
    assert "00000000000000000000" not in html
    assert good.count("No epoch has ended yet.") == page.words.count("No epoch has ended yet.")


@pytest.mark.parametrize("content", [None, "", "[]", '{"stage": "x"}', '{"stage": "inter", "command": 5}'])
def test_without_an_environment_the_rest_is_shown(
    trained: Trained, tmp_path: Path, content: str | None
) -> None:
    for finished in (trained.inter, trained.intra):
        run = RunFolder(tmp_path / finished.path.name)
        shutil.copytree(finished.path, run.path)
        file = run.path / "environment.json"
        file.unlink()
        if content is not None:
            file.write_text(content)
        if content is not None and "command" in content and finished is trained.intra:
            continue  # which says that it is another stage's
        page, missing, _ = report(run.path)
        assert missing.keys() == (set() if finished is trained.inter else PARTS - {"clusters"})
        assert ("environment.json is missing or damaged" in page.words) == (
            content is None or "inter" not in content
        )
