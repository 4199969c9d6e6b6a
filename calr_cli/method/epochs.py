"""The epochs of a training: where it stands, what is kept of it, how it goes on after an interruption.

Every stage loops over `Epochs` and says only what it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from calr_cli.config.schema import Inter, Intra, Settings
from calr_cli.data.loaders import PixelSource
from calr_cli.distributed import collectives
from calr_cli.distributed.devices import num_processes
from calr_cli.events import Reporter, SilentReporter
from calr_cli.figures import EpochFigures, IntraEpoch, Seconds
from calr_cli.method.build import build_augmentation, build_extractor, build_losses
from calr_cli.method.estimates import Paced, duration, stage_steps
from calr_cli.models.batch_norm import rank_groups
from calr_cli.runs.folder import RunFolder
from calr_cli.training.epoch import EpochLosses, Saving, train_epoch
from calr_cli.training.networks import Networks
from calr_cli.training.objective import Objective, Term
from calr_cli.training.optim import scheduled_lr, set_rates
from calr_cli.training.reproducibility import keyed_rng
from calr_cli.training.state import EpochUnderWay, TrainingState
from calr_cli.training.step import Batching
from calr_cli.types import FloatArray, ImageSet, IntArray


class Labels(Protocol):
    """What a stage finds out before an epoch trains, as tensors for resuming."""

    @property
    def to_train_on(self) -> IntArray:
        """(N,) pseudo labels."""
        ...

    def to_tensors(self) -> dict[str, Tensor]:
        """Everything, by name."""
        ...

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """What `to_tensors` gave."""
        ...


L = TypeVar("L", bound=Labels)

_SHORT_SECONDS = 60
"""Below this nobody has to be told how long a stage takes."""


@dataclass(frozen=True)
class TrainingImages:
    """The images of a training and their pixels."""

    images: ImageSet
    pixels: PixelSource

    def subset(self, members: IntArray) -> TrainingImages:
        """The images at ``members``, in that order."""
        return TrainingImages(self.images.subset(members), self.pixels.subset(members))


def tell_idle_ranks(batch_size: int, group_size: int, reporter: Reporter) -> None:
    """One line if a batch has fewer batch-norm groups than there are ranks: the others idle."""
    ranks = collectives.world_size()
    busy = sum(1 for groups in rank_groups(batch_size, group_size, ranks) if groups)
    if busy < ranks:
        reporter.note(
            f"{busy} of {ranks} devices train: {batch_size} images are {busy} group(s) of {group_size} for "
            f"batch normalisation; batch_norm_group_size={max(batch_size // ranks, 2)} would use all, with "
            "other results"
        )


class Epochs:
    """The epochs that are left of a training, and one more: labels of the finished network can be had there.

    Args:
        settings: Settings of the run.
        stage: The stage's own part of them.
        key: Names the stage, and its camera, in draws of random numbers.
        data: What is trained on.
        networks: What is trained.
        folder: Where state and figures are kept.
        reporter: Told what happens.
        cameras: Folders that keep the figures of a camera instead, by its number.
        alike: Trainings like this one that are still to come, itself counted; 0: nobody wants to know.
    """

    def __init__(
        self,
        settings: Settings,
        stage: Intra | Inter,
        key: tuple[str | int, ...],
        data: TrainingImages,
        networks: Networks,
        folder: RunFolder,
        reporter: Reporter,
        cameras: Mapping[int, RunFolder] | None = None,
        alike: int = 1,
    ) -> None:
        self.settings, self.stage, self.key, self.data = settings, stage, key, data
        self.networks, self.folder, self.reporter = networks, folder, reporter
        self._cameras, self.alike = cameras or {}, alike
        self.losses = build_losses(settings, stage)
        self.extract = build_extractor(settings, reporter)
        tell_idle_ranks(stage.batch_size, settings.batch_norm_group_size, reporter)
        self.state = TrainingState(networks, data.images.fingerprint)
        self.is_resumed = self.state.restore(folder.state)

    @property
    def done(self) -> int:
        """Whole epochs so far."""
        return self.state.epoch

    def __iter__(self) -> Iterator[Epoch]:
        for place in set(self._cameras.values()) or {self.folder}:
            if collectives.is_main():
                place.keep_metrics([row for row in self.state.figures if self.folder_of(row) == place])
        first = self.done
        while self.done <= max(first, self.stage.epochs):
            # What holds for every epoch is said in the first one.
            yield Epoch(self, self.reporter if self.done == first else SilentReporter())

    def folder_of(self, row: EpochFigures) -> RunFolder:
        """Where these figures are kept."""
        return self._cameras.get(row.camera, self.folder) if isinstance(row, IntraEpoch) else self.folder

    def save(self) -> None:
        """Keep where the training stands."""
        self.state.save(self.folder.state, self.settings.model_dump())


class Epoch:
    """One epoch, from its features to its figures.

    Args:
        epochs: The training that it belongs to.
        once: Told what is to be said of one epoch alone.

    Attributes:
        number: From 0.
    """

    def __init__(self, epochs: Epochs, once: Reporter) -> None:
        self._epochs, self.once, self.number = epochs, once, epochs.done
        self._features = np.empty((0, 0), np.float32)
        self._extracting = 0.0
        self._training = 0.0

    @property
    def is_over(self) -> bool:
        """Whether it comes after the last one, and is there for its labels only."""
        return self.number >= self._epochs.stage.epochs

    def features(self) -> FloatArray:
        """(N, D) of all images, on the first process; none where an interrupted epoch has its labels."""
        if self._epochs.state.under_way is None:
            began = perf_counter()
            self._features = self._epochs.extract(self._epochs.networks.encoder, self._epochs.data.pixels)
            self._extracting = perf_counter() - began
        return self._features

    def labels(self, kind: type[L], title: str, make: Callable[[], L]) -> L:
        """The labels of this epoch: kept by an interrupted one, else made by the first process.

        Args:
            kind: Of labels.
            title: Of the progress shown.
            make: Gives them, from what `features` gave.
        """
        state = self._epochs.state
        if state.under_way is None:
            began = perf_counter()
            tensors, rows = collectives.made_by_main(lambda: self._begun(title, make))
            seconds = {"extract": self._extracting, "cluster": perf_counter() - began}
            state.under_way = EpochUnderWay(tensors, rows, seconds)
        return kind.from_tensors(state.under_way.labels)

    def _begun(self, title: str, make: Callable[[], L]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Labels, and the rows that each loss starts from, as tensors."""
        with self._epochs.reporter.progress(title, 0):
            labels = make()
        camids = self._epochs.data.images.camids
        rows = {
            name: torch.from_numpy(loss.start(self._features, labels.to_train_on, camids))
            for name, loss in self._epochs.losses.items()
        }
        return labels.to_tensors(), rows

    def terms(self, labels: IntArray) -> list[Term]:
        """The contrastive losses of this epoch; a loss that was not asked for when it began is not there."""
        under_way, epochs = self._epochs.state.under_way, self._epochs
        assert under_way is not None
        camids, device = epochs.data.images.camids, epochs.networks.device
        return [
            loss(under_way.rows[name].to(device), labels, camids)
            for name, loss in epochs.losses.items()
            if name in under_way.rows
        ]

    def rng(self, purpose: str) -> np.random.Generator:
        """The source of random draws for one purpose."""
        return keyed_rng(self._epochs.settings.seed, *self._epochs.key, self.number, purpose)

    def train(self, objective: Objective, batches: IntArray, title: str = "") -> EpochLosses:
        """Train on ``batches`` (T, B) to the end of the epoch; an interrupt leaves its position.

        Args:
            objective: What is minimised; made of `terms`.
            batches: (T, B) positions.
            title: Of the progress shown, in front of the number of the epoch.

        Raises:
            TrainingError: The loss is not a number.
            DataError: An image that cannot be read.
            MemoryLimitError: A group of images does not fit into the GPU.
        """
        epochs, under_way = self._epochs, self._epochs.state.under_way
        assert under_way is not None
        options, settings = epochs.stage.optimiser, epochs.settings
        lr = scheduled_lr(
            self.number,
            lr=options.lr,
            step_size=options.step_size,
            gamma=options.gamma,
            warmup_epochs=options.warmup_epochs,
        )
        set_rates(epochs.networks.optimiser, lr=lr, weight_decay=options.weight_decay)
        names = [name for name in epochs.losses if name in under_way.rows]

        def save(losses: Tensor) -> None:
            under_way.losses = losses
            under_way.rows = {n: term.rows for n, term in zip(names, objective.terms, strict=True)}
            epochs.save()

        draws = partial(keyed_rng, settings.seed, *epochs.key, self.number)
        began = perf_counter()
        losses = train_epoch(
            epochs.networks,
            objective,
            epochs.data.pixels,
            batches,
            Batching(
                build_augmentation(settings, epochs.networks.encoder), draws, settings.batch_norm_group_size
            ),
            title=f"{title}epoch {self.number + 1}/{epochs.stage.epochs}",
            reporter=Paced(epochs.reporter, self._tell_time),
            saving=Saving(under_way.losses, save),
        )
        self._training = perf_counter() - began
        return losses

    def _tell_time(self, batch: float, timed: int) -> None:
        """Say how long the stage takes, and in stage 1 how long stage 2 will, from the seconds of a batch."""
        epochs, under_way = self._epochs, self._epochs.state.under_way
        assert under_way is not None
        stage, alike = epochs.stage, epochs.alike
        epoch = sum(under_way.seconds.values()) + stage.iters * batch
        left = alike * (stage.epochs - self.number) * epoch
        if left <= _SHORT_SECONDS:
            return
        number = 1 if isinstance(stage, Intra) else 2
        text = f"stage {number} takes about {duration(left)}"
        if isinstance(stage, Intra):
            together = num_processes([epochs.networks.device]) if stage.network == "per-camera" else 1
            images = stage_steps(epochs.settings, "inter", 1, alike * len(epochs.data.images))
            text += f", stage 2 after it about {duration(batch / stage.batch_size * images / together)}"
        self.once.note(f"{text} (from the first {timed} batches)")

    @property
    def seconds(self) -> Seconds:
        """Of its steps so far."""
        under_way = self._epochs.state.under_way
        assert under_way is not None
        return Seconds(**under_way.seconds, train=self._training)

    def end(self, *rows: EpochFigures) -> None:
        """Keep the figures and where the training stands, and say the figures."""
        epochs, state = self._epochs, self._epochs.state
        state.epoch, state.under_way = self.number + 1, None
        state.figures += rows
        epochs.save()
        for row in rows:
            if collectives.is_main():
                epochs.folder_of(row).append_metrics(row)
            epochs.reporter.metric(row)
