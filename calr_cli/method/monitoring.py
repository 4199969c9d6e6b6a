"""Looks at the test set while training: for people to watch, never for training to learn from."""

from __future__ import annotations

from calr_cli.config.schema import Settings
from calr_cli.errors import ConfigError
from calr_cli.events import Reporter
from calr_cli.figures import TestFigures
from calr_cli.method.build import build_pixels
from calr_cli.method.evaluate import evaluate, require_test_set
from calr_cli.models.encoder import Encoder
from calr_cli.prepare.datasets import DATASET_NAMES
from calr_cli.types import Dataset

_EVERY = 10


class Monitor:
    """Evaluates every few epochs and in the last one, if the settings want that.

    Args:
        settings: Settings of the run.
        dataset: Its query and gallery are looked at.
        reporter: Told of what is decoded and evaluated.

    Raises:
        DataError: It is asked for, and there is no query or gallery with identities.
    """

    def __init__(self, settings: Settings, dataset: Dataset, reporter: Reporter) -> None:
        self.settings, self.dataset, self.reporter = settings, dataset, reporter
        asked, oracle = settings.evaluation.monitor_every, settings.inter.selection.oracle
        if asked == 0 and oracle:
            raise ConfigError(
                "inter.selection.oracle looks at the test set, evaluation.monitor_every = 0 never does",
                "Leave one of them out",
            )
        own = dataset.name not in DATASET_NAMES
        self.every = asked if asked is not None else 1 if oracle else 0 if own else _EVERY
        if asked is None and not oracle and not dataset.has_test_set:
            self.every = 0
        if self.every:
            require_test_set(dataset)
            self.pixels = tuple(
                build_pixels(settings, part, reporter) for part in (dataset.query, dataset.gallery)
            )

    def is_due(self, epoch: int) -> bool:
        """Whether it is time for a look after ``epoch`` epochs."""
        return bool(self.every) and (epoch % self.every == 0 or epoch == self.settings.inter.epochs)

    def look(self, encoder: Encoder, epoch: int) -> TestFigures | None:
        """MAP and Rank-1 after ``epoch`` epochs in percent, None where it is not time for it."""
        if not self.is_due(epoch):
            return None
        q_pixels, g_pixels = self.pixels
        figures = evaluate(
            self.settings, encoder, self.dataset, False, self.reporter, pixels=(q_pixels, g_pixels)
        )
        self.reporter.note(
            f"monitoring only: mAP {figures['mAP']:.1f}, Rank-1 {figures['Rank-1']:.1f} "
            f"on the test set after {epoch} epochs"
        )
        return TestFigures(figures["mAP"], figures["Rank-1"])
