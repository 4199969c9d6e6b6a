"""When two images are said to show the same."""

from __future__ import annotations

from calr_cli.evaluation.calibration import Calibration, in_percent
from calr_cli.events import Reporter

ROUNDING = 1e-5
"""What rounding may take from a similarity: that of an image to itself is 0.9999999."""


def reaches(similarity: float, threshold: float) -> bool:
    """Whether a similarity is enough."""
    return bool(similarity >= threshold - ROUNDING)


def possible(
    threshold: float | None, calibration: Calibration | None, prior: float | None, reporter: Reporter
) -> float | None:
    """The threshold, or None where no similarity reaches it: there is no verdict then, and that is told."""
    if threshold is None or calibration is None or prior is None or reaches(1.0, threshold):
        return threshold
    asked, best = (in_percent(float(calibration.probability(value, prior))) for value in (threshold, 1.0))
    reporter.warning(
        f"no similarity makes it {asked} probable that two images show the same: before looking it is "
        f"{100 * prior:.2g} %, and even a similarity of 1 makes it {best}. Nothing is called the same or "
        "unknown by it. Take a similarity such as 0.6 as the threshold, or a lower probability"
    )
    return None
