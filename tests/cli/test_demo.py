"""``calr demo`` with smaller settings: what ``make demo`` runs, in less time."""

from __future__ import annotations

from pathlib import Path

import pytest

from calr_cli.runs.folder import RunFolder
from tests.cli.conftest import Calr

SMALL = ["intra.epochs=1", "intra.iters=2", "inter.epochs=2", "inter.iters=4", "inter.weights.start_epoch=1"]


@pytest.mark.e2e
def test_demo_compares_four_models_measured_in_the_run(calr: Calr, folder: Path) -> None:
    sets = [word for assignment in SMALL for word in ("--set", assignment)]
    answer = calr("demo", "--output", "out", "--json", *sets)
    assert answer.exit_code == 0, answer.stderr
    rows = {row["model"]: row for row in answer.json["rows"]}
    assert list(rows) == ["untrained", "global clustering", "CALR", "recipe plus"]
    for row in rows.values():
        assert 0 < row["mAP"] < row["Rank-10"] <= 100
        assert row["Rank-1"] <= row["Rank-5"] <= row["Rank-10"]
    assert len({row["mAP"] for row in rows.values()}) == 4

    baseline, inter = (
        RunFolder(folder / "out" / name / "inter").read_metrics() for name in ("baseline", "calr")
    )
    assert len(baseline) == len(inter) == 2
    for row in baseline:
        assert (row["discarded"], row["camera_loss"], row["zero_weight_clusters"]) == (0, None, None)
    assert inter[0]["discarded"] > 0
    assert inter[0]["camera_loss"] is not None
    assert inter[1]["zero_weight_clusters"] is not None

    assert answer.json["report"] == "out/report.html"
    page = (folder / "out/report.html").read_text()
    assert all(run in page for run in answer.json["runs"].values())

    again = calr("demo", "--output", "out", *sets)
    assert again.exit_code == 1
    assert again.errors == [
        "error: out exists already. Choose another --output, or continue an interrupted run with --resume"
    ]


def test_a_stage_1_that_gives_no_network_is_not_begun(calr: Calr, folder: Path) -> None:
    answer = calr("demo", "--output", "out", "--set", "inter.start=intra")
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.errors == [
        "error: inter.start = intra: with intra.network = per-camera stage 1 gives no network to start from. "
        "Give --set intra.network=shared (or --recipe plus), or --set inter.start=pretrained"
    ]
    assert list(folder.iterdir()) == []
