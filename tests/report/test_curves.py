from __future__ import annotations

from calr_cli.report.curves import INTER, compared_panels, panels_of, value_at
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
    for row in run.rows:
        row.pop("quality")
        row.pop("monitoring")
    missing = {panel.title: panel.missing for panel in panels_of(run, "x") if panel.svg is None}
    assert "not looked at" in missing["mAP and Rank-1 on the test set, %"]
    assert missing["Label F, pairs"] == "The identities of the training images are not known."
    run.rows.clear()
    assert {panel.missing for panel in panels_of(run, "x")} == {"No epoch has ended yet."}


def test_stage_1_has_a_curve_per_camera_and_is_not_compared(trained: Trained) -> None:
    intra, inter = read_runs([trained.intra.path, trained.inter.path])
    silhouette = panels_of(intra, "x")[0]
    assert silhouette.svg is not None
    assert all(f"camera {camid}" in silhouette.svg for camid in range(3))
    loss = compared_panels([intra, inter], "y")[1]
    assert loss.svg is not None
    assert "inter " in loss.svg
    assert "intra" not in loss.svg


def test_a_number_by_its_path() -> None:
    row = {"seconds": {"train": 2}, "loss": None, "title": "x"}
    assert value_at(row, "seconds.train") == 2.0
    assert [value_at(row, key) for key in ("loss", "title", "seconds", "seconds.more", "loss.x")] == [
        None
    ] * 5
