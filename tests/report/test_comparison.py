from __future__ import annotations

from calr_cli.report.comparison import Cell, Figure, differing_settings, side_by_side
from calr_cli.report.record import read_runs
from tests.report.conftest import Trained


def test_differences_are_to_the_first_run() -> None:
    columns = [
        [Figure("mAP", 40.26, ".1f", "%"), Figure("clusters", 1200)],
        [Figure("mAP", 38.0, ".1f", "%"), Figure("label F", 0.5, ".3f"), Figure("clusters", 1200)],
    ]
    assert side_by_side(columns) == [
        ("mAP", [Cell("40.3%", ""), Cell("38.0%", "−2.3")]),
        ("clusters", [Cell("1,200", ""), Cell("1,200", "+0")]),
        ("label F", [Cell("–", ""), Cell("0.500", "")]),
    ]


def test_only_settings_that_differ(trained: Trained) -> None:
    runs = read_runs([trained.intra.path, trained.inter.path])
    assert differing_settings(runs) == []
    runs[1].folder.write_settings(runs[1].settings.model_copy(update={"seed": 7}))
    try:
        again = read_runs([trained.intra.path, trained.inter.path])
        assert differing_settings(again) == [("seed", [1, 7])]
    finally:
        runs[1].folder.write_settings(runs[1].settings)
