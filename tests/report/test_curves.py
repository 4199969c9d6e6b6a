from __future__ import annotations

from dataclasses import replace
from typing import Any

from calr_cli.report.curves import INTER, compared_panels, panels_of
from calr_cli.report.record import read_runs
from tests.report.conftest import Trained


def test_every_curve_of_a_run_that_knows_everything(trained: Trained) -> None:
    (run,) = read_runs([trained.inter.path])
    panels = {panel.title: panel for panel in panels_of(run, "x")}
    assert list(panels) == [measure.title for measure in INTER]
    without = {title for title, panel in panels.items() if panel.svg is None}
    assert without <= {"Discards that were right, share"}


def test_what_is_not_known_says_why(trained: Trained) -> None:
    (run,) = read_runs([trained.inter.path])
    nothing: dict[str, Any] = {"quality": None, "monitoring": None}
    run = replace(run, rows=[replace(row, **nothing) for row in run.rows])
    missing = {panel.title: panel.missing for panel in panels_of(run, "x") if panel.svg is None}
    assert "not looked at" in missing["mAP and Rank-1 on the test set, %"]
    assert missing["Label F, pairs"] == "The identities of the training images are not known."
    empty = replace(run, rows=[])
    assert {panel.missing for panel in panels_of(empty, "x")} == {"No epoch has ended yet."}


def test_stage_1_has_a_curve_per_camera_and_is_not_compared(trained: Trained) -> None:
    intra, inter = read_runs([trained.intra.path, trained.inter.path])
    silhouette = panels_of(intra, "x")[0]
    assert silhouette.svg is not None
    assert all(f"camera {camid}" in silhouette.svg for camid in range(3))
    loss = compared_panels([intra, inter], "y")[1]
    assert loss.svg is not None
    assert "inter " in loss.svg
    assert "intra" not in loss.svg
