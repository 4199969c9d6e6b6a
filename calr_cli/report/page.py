"""Writes the page as one file that needs no other files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from calr_cli.events import Reporter
from calr_cli.files import atomic_write
from calr_cli.report.comparison import differing_settings, side_by_side
from calr_cli.report.curves import COLUMNS, compared_panels, usable
from calr_cli.report.findings import examine
from calr_cli.report.missing import Missing
from calr_cli.report.record import RunRecord
from calr_cli.report.rendering import render
from calr_cli.report.views import changes, detail_for, view_of
from calr_cli.version import __version__

SECTIONS = (
    ("summary", "Summary"),
    ("curves", "Curves"),
    ("ranked", "Ranked lists"),
    ("clusters", "Clusters"),
    ("map", "Map of features"),
    ("cameras", "From camera to camera"),
    ("pairs", "Similarities"),
)
"""Key and title of each section of a run."""


def write_report(
    runs: Sequence[RunRecord], output: Path, device: torch.device, root: Path | None, reporter: Reporter
) -> dict[str, Any]:
    """Examine the runs and write the page.

    Args:
        runs: Runs from `record.read_runs`; the page compares the later runs with the first.
        output: File to write.
        device: Device of the networks.
        root: Data root to use instead of the remembered one.
        reporter: Receiver of progress and warnings.

    Returns:
        ``report``: the file; ``bytes``: its size; ``runs``: the figures of each run, and its missing parts
        with reasons.

    Raises:
        OSError: The file cannot be written.
    """
    detail = detail_for(len(runs))
    views = []
    for number, run in enumerate(runs):
        reporter.stage(f"{run.name}: {run.status}")
        findings = examine(run, device, root, detail.points, reporter)
        views.append(view_of(f"run{number}", run, findings, detail))
    page = render(
        "report.html",
        **{
            "version": __version__,
            "made": datetime.now().astimezone(),
            "views": views,
            "sections": SECTIONS,
            "columns": COLUMNS,
            "usable": usable,
            "table": side_by_side([view.figures for view in views]),
            "differing": differing_settings(runs) if len(runs) > 1 else [],
            "panels_of_all": compared_panels(runs, "compared") if len(runs) > 1 else [],
            "changes": changes(views, min(2, detail.queries)),
        },
    )
    content = page.encode("utf-8", "backslashreplace")  # file names need not be text
    with atomic_write(output) as temporary:
        temporary.write_bytes(content)
    return {
        "report": str(output),
        "bytes": len(content),
        "runs": [
            {
                "run": str(view.run.folder.path),
                "status": view.run.status,
                **{figure.name: figure.value for figure in view.figures},
                "missing": {
                    name: part.reason
                    for name in ("ranked", "clusters", "maps", "camera_map", "pairs")
                    if isinstance(part := getattr(view, name), Missing)
                },
            }
            for view in views
        ],
    }
