"""Which images a run was begun on: a dataset that was prepared again has others, or another order."""

from __future__ import annotations

from pathlib import Path

from calr_cli.errors import CheckpointError
from calr_cli.events import Reporter
from calr_cli.runs.folder import RunFolder
from calr_cli.types import ImageSet

_KEY = "images"
"""Of `ImageSet.listing` in ``environment.json``: a run keeps labels by path, too."""


def claim_images(run: RunFolder, images: ImageSet) -> None:
    """Write down the training images of a new run; of a resumed one, refuse others.

    Raises:
        CheckpointError: The run was begun on other images.
    """
    record = run.read_environment()
    if record.setdefault(_KEY, images.listing) != images.listing:
        raise CheckpointError(
            f"{run.path} was begun on other training images: the dataset was prepared again since, and what "
            "the run has learnt of its images would go to the wrong ones",
            "Start a new run, or prepare the dataset as it was",
        )
    run.write_environment(record)


def warn_of_other_images(labels: Path, images: ImageSet, reporter: Reporter) -> None:
    """Warn if the run that ``labels`` are in was begun on other training images."""
    run = RunFolder(labels.parent)
    try:
        begun_on = run.read_environment().get(_KEY)
    except CheckpointError:
        return  # labels that no run made, or an old one
    if begun_on not in (None, images.listing):
        reporter.warning(
            f"{labels} was made for other training images: the dataset was prepared again since. Labels go "
            "to the files of the same name; run train-intra again if these show something else now"
        )
