"""``calr compare``: whether two images show the same."""

from __future__ import annotations

from typing import Annotated

import typer

from calr_cli.cli import options
from calr_cli.cli.console import print_json, print_table, reporter_for
from calr_cli.cli.trained import Resume, Threshold, open_trained, similarity_threshold, tell_calibration
from calr_cli.errors import DataError

Image = Annotated[str, typer.Argument(help="image file")]


def compare(
    context: typer.Context,
    first: Image,
    second: Image,
    resume: Resume,
    threshold: Threshold = None,
    arch: options.Arch = None,
    height: options.Height = None,
    width: options.Width = None,
    pooling: options.Pooling = None,
    device: options.Device = None,
    threads: options.Threads = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare two images: similarity, the probability that they show the same, and a verdict.

    Example:
        calr compare --resume model.pth a.jpg b.jpg
    """
    from calr_cli.evaluation.calibration import EVEN_ODDS, in_percent
    from calr_cli.use.verdict import possible, reaches

    reporter = reporter_for(quiet)
    embedder = open_trained(resume, options.setting_flags(context, "evaluation"), device, reporter)
    calibration = embedder.calibration
    least = similarity_threshold(threshold, calibration, EVEN_ODDS, resume)
    tell_calibration(calibration, EVEN_ODDS, resume, reporter)
    least = possible(least, calibration, EVEN_ODDS, reporter)
    features, failed = embedder.embed([first, second])
    if failed:
        raise DataError(failed, "Two images are needed")
    similarity = min(1.0, max(-1.0, float(features.rows[0] @ features.rows[1])))
    probability = None if calibration is None else float(calibration.probability(similarity))
    verdict = None if least is None else "same" if reaches(similarity, least) else "different"
    result = {
        "first": first,
        "second": second,
        "similarity": similarity,
        "probability": probability,
        "prior": None if calibration is None else EVEN_ODDS,
        "threshold": least,
        "verdict": verdict,
    }
    if json:
        print_json(result)
        return
    cells = {
        "similarity": f"{similarity:.3f}",
        "probability": in_percent(probability),
        "threshold": "-" if least is None else f"{least:.3f}",
        "verdict": verdict or "-",
    }
    print_table(list(cells), [list(cells.values())], numbers_from=0)
