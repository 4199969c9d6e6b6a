"""Which model a run of stage 2 gives, decided without identities."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from calr_cli.config.schema import Settings
from calr_cli.distributed import collectives
from calr_cli.events import Reporter
from calr_cli.figures import Best, Choice, TestFigures, from_json, to_json
from calr_cli.files import atomic_write
from calr_cli.method.build import model_card
from calr_cli.method.epochs import Epochs
from calr_cli.method.monitoring import Monitor
from calr_cli.runs.folder import RunFolder
from calr_cli.training.checkpoint import save_model


class ModelSelection:
    """Keeps the models of a run that may be asked for: the last, the selected, and on request the oracle.

    Args:
        settings: Settings of the run.
        epochs: Its training; what is known of the models is kept in its state.
        run: Where the models are kept.
        monitor: Looks at the test set.
    """

    def __init__(self, settings: Settings, epochs: Epochs, run: RunFolder, monitor: Monitor) -> None:
        self._settings, self._epochs, self._run, self._monitor = settings, epochs, run, monitor

    @property
    def choice(self) -> Choice:
        """What is known so far."""
        return from_json(Choice, self._epochs.state.best)

    def judge(self, criterion: float) -> None:
        """Keep the model that an epoch begins with, if no earlier one had a better criterion.

        Where the model is a running average of the weights, it lags behind the network that made the
        labels; so its criterion is the same running average of theirs.
        """
        done = self._epochs.done
        if done == 0:
            return
        inter, choice = self._settings.inter, self.choice
        share = inter.average**inter.iters
        criterion += share * (choice.criteria.get(str(done - 1), criterion) - criterion)
        criteria = {**choice.criteria, str(done): criterion}
        best = self._better(choice.selected, criterion, self._run.selected)
        self._remember(replace(choice, criteria=criteria, selected=best))

    def keep(self, epoch: int) -> TestFigures | None:
        """Keep the model after ``epoch`` epochs; figures on the test set, where it is time for them."""
        if collectives.is_main():
            self._save(self._run.last, epoch)
        figures = self._monitor.look(self._epochs.networks.model, epoch)
        if figures is not None and self._settings.inter.selection.oracle:
            choice = self.choice
            best = self._better(choice.oracle, figures.mAP, self._run.oracle, epoch)
            self._remember(replace(choice, oracle=best))
        return figures

    @property
    def patience_is_over(self) -> bool:
        """Whether no model has had a better criterion for as many epochs as the settings wait."""
        patience, best = self._settings.inter.selection.patience, self.choice.selected
        return patience is not None and best is not None and self._epochs.done - best.epoch >= patience

    def finish(self, reporter: Reporter) -> int:
        """Make the model that is asked for the model of the run; the epochs of training behind it."""
        run, choice, wanted = self._run, self.choice, self._settings.inter.selection.model
        epoch = self._epochs.done
        if wanted == "selected":
            assert choice.selected is not None
            epoch = choice.selected.epoch
        reporter.note(f"{run.model.name}: {wanted}, after {epoch} of {self._epochs.done} epochs")
        if best := choice.oracle:
            words = f"oracle, best on the test set, after {best.epoch} epochs: mAP {best.score:.1f}"
            reporter.note(f"{run.oracle.name}: {words}")
        if collectives.is_main():
            if wanted == "selected":
                run.write_selection(choice.criteria, epoch)
            with atomic_write(run.model) as temporary:
                shutil.copyfile(run.selected if wanted == "selected" else run.last, temporary)
        return epoch

    def _remember(self, choice: Choice) -> None:
        self._epochs.state.best = to_json(choice)

    def _better(self, best: Best | None, score: float, file: Path, epoch: int | None = None) -> Best:
        """The better of ``best`` and today's model, which is kept in ``file`` then; the first of equals."""
        epoch = self._epochs.done if epoch is None else epoch
        if best is not None and score <= best.score:
            return best
        if collectives.is_main():
            # Not a copy of last.pth: a run that was killed may have written a later one there.
            self._save(file, epoch)
        return Best(epoch, score)

    def _save(self, file: Path, epoch: int) -> None:
        encoder = self._epochs.networks.model
        save_model(
            file, encoder, model_card(self._settings, encoder, "inter", epoch, self._epochs.data.images)
        )
