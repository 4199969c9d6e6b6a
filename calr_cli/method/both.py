"""Both stages, one after the other: the only place where stage 1 hands its results over to stage 2."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from calr_cli.config.schema import Settings
from calr_cli.data.local_labels import read_local_labels, write_local_labels
from calr_cli.distributed import collectives
from calr_cli.errors import ConfigError
from calr_cli.events import Reporter
from calr_cli.files import atomic_write
from calr_cli.method import processes
from calr_cli.method.build import check_start_model
from calr_cli.method.clusters import build_clustering
from calr_cli.runs.find import newest_local_labels
from calr_cli.runs.folder import RunFolder
from calr_cli.runs.images import claim_images, warn_of_other_images
from calr_cli.types import Dataset, ImageSet, IntArray


@dataclass(frozen=True)
class Pair:
    """The runs of both stages that belong together; each knows its settings.

    Attributes:
        inter: Of stage 2.
        intra: Of stage 1; None where stage 2 needs none, or takes labels that are there already.
        given: Those labels, the file or folder.
    """

    inter: RunFolder
    intra: RunFolder | None = None
    given: Path | None = None

    @property
    def local_labels(self) -> Path | None:
        """The local labels that stage 2 uses; they may be still to come."""
        return self.given if self.intra is None else self.intra.local_labels


def train_both(
    pair: Pair, dataset: Dataset, devices: Sequence[torch.device], reporter: Reporter
) -> dict[str, Any]:
    """Run stage 1, then stage 2 with its local labels and, if asked for, its network; skip what is finished.

    Args:
        pair: The runs.
        dataset: Of both.
        devices: Where they work, a process on each.
        reporter: Hears the progress.

    Returns:
        Summaries of the stages that ran, ``intra`` and ``inter``.

    Raises:
        CalrError: What either stage raises, see `train_intra` and `train_inter`.
        OSError: A run folder cannot be written.
    """
    summaries = {}
    if pair.intra is not None and is_left(pair.intra.local_labels, reporter):
        summaries["intra"] = run_stage_1(pair.intra, dataset, devices, reporter)
    if is_left(pair.inter.model, reporter):
        labels = collectives.made_by_main(lambda: hand_over(pair, dataset.train))
        summaries["inter"] = run_stage_2(pair.inter, dataset, labels, devices, reporter)
    return summaries


def is_left(result: Path, reporter: Reporter) -> bool:
    """Whether the run that ends with ``result`` still has to be made."""
    finished = collectives.made_by_main(result.exists)
    if finished:
        reporter.note(f"finished before: {result}")
    return not finished


def run_stage_1(
    run: RunFolder, dataset: Dataset, devices: Sequence[torch.device], reporter: Reporter
) -> dict[str, Any]:
    """Stage 1 in ``run``, with the run's settings; its summary."""
    settings = collectives.made_by_main(lambda: run.settings)
    collectives.made_by_main(lambda: claim_images(run, dataset.train))
    reporter.stage(f"stage 1, intra-camera: {dataset.name} -> {run.path}")
    return {**processes.run_intra(settings, dataset, run, devices, reporter), "run": str(run.path)}


def hand_over(pair: Pair, images: ImageSet) -> IntArray | None:
    """Give the run of stage 2 a copy of the local labels and, where it starts from it, of stage 1's network.

    Returns:
        (N,) labels of the training ``images``; None where stage 2 uses nothing of stage 1.

    Raises:
        DataError: The labels are not of these images.
        OSError: The run folder cannot be written.
    """
    file, run, inter = pair.local_labels, pair.inter, pair.inter.settings.inter
    if file is None:
        assert not inter.uses_stage_1
        return None
    labels = read_local_labels(file, images)
    if file != run.local_labels:  # else it was handed over before
        if inter.start == "intra":
            with atomic_write(run.start) as temporary:
                shutil.copyfile(RunFolder(file.parent).model, temporary)
        write_local_labels(run.local_labels, images, labels)
    return labels


def run_stage_2(
    run: RunFolder,
    dataset: Dataset,
    local_labels: IntArray | None,
    devices: Sequence[torch.device],
    reporter: Reporter,
) -> dict[str, Any]:
    """Stage 2 in ``run``, with the run's settings; its summary."""
    settings = collectives.made_by_main(lambda: run.settings)
    collectives.made_by_main(lambda: claim_images(run, dataset.train))
    reporter.stage(f"stage 2, inter-camera: {dataset.name} -> {run.path}")
    summary = processes.run_inter(settings, dataset, local_labels, run, devices, reporter)
    return {**summary, "run": str(run.path)}


def find_local_labels(
    settings: Settings, images: ImageSet, resumed: RunFolder | None, given: Path | None, reporter: Reporter
) -> Path | None:
    """Find local labels for a run of stage 2: its own, those given, or else the newest of the dataset.

    Args:
        settings: Of the run.
        images: Training images, which the labels have to be of.
        resumed: The run, if it was begun before.
        given: Labels asked for by ``--local-labels``.
        reporter: Hears which labels were found, or that there are none.

    Returns:
        The file or folder; None if stage 1 has to run first, or is not needed.

    Raises:
        ConfigError: ``given``, and the run has its own already or uses none.
        DataError: Labels that are not of these images.
        CalrError: Stage 2 cannot cluster here, see `build_clustering`, or has no network of stage 1 to start
            from, see `check_start_model`.
    """
    build_clustering(settings, reporter)
    if not settings.inter.uses_stage_1:
        if given is not None:
            raise ConfigError(
                "--local-labels is of no use with inter.refinement.enabled = false", "Leave one of them out"
            )
        return None
    if resumed is not None and resumed.local_labels.exists():
        if given is not None:
            raise ConfigError(
                f"{resumed.path} was begun with local labels of its own, {resumed.local_labels}",
                "Leave --local-labels out",
            )
        read_local_labels(resumed.local_labels, images)
        return resumed.local_labels
    labels = given
    if labels is None:
        name, with_network = settings.data.dataset, settings.inter.start == "intra"
        labels = newest_local_labels(name, with_network)
        none = f"no local labels{' with a network' * with_network} of {name} yet: running stage 1 first"
        reporter.note(f"local labels: {labels} (the newest of {name})" if labels else none)
    if labels is not None:
        read_local_labels(labels, images)  # a wrong file stops the run before anything is written
        warn_of_other_images(labels, images, reporter)
    check_start_model(settings, labels)
    return labels
