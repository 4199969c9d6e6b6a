"""The runs of both stages that belong together: made, opened again, trained one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calr_cli.cli.begin import Training
from calr_cli.cli.next_steps import commands_left, resumable
from calr_cli.errors import CheckpointError
from calr_cli.events import Reporter, SilentReporter

if TYPE_CHECKING:
    from calr_cli.method.both import Pair
    from calr_cli.runs.resume import Continuation

STAGES = ("intra", "inter")


def begin_pairs(training: Training, seeds: int | None, folder: Path | None) -> list[Pair]:
    """New runs, with all their folders, so that what was left to do is seen there later.

    Args:
        training: What they begin with.
        seeds: Number of pairs, each in a folder of its own; None: one, in ``folder`` itself.
        folder: Where; None: where single runs are.

    Raises:
        CheckpointError: A folder exists already or cannot be made.
        ConfigError: Stage 2 is to start from a network that stage 1 does not give, or cannot cluster here.
    """
    from calr_cli.method.both import Pair
    from calr_cli.method.build import check_start_model
    from calr_cli.method.clusters import build_clustering
    from calr_cli.runs.find import create_run

    check_start_model(training.settings, None)
    build_clustering(training.settings, SilentReporter())
    stages = STAGES if training.settings.inter.uses_stage_1 else STAGES[1:]
    pairs = []
    for seed in range(training.settings.seed, training.settings.seed + (seeds or 1)):
        settings = training.settings.model_copy(update={"seed": seed})
        place = folder / f"seed{seed}" if folder is not None and seeds is not None else folder
        runs = {
            stage: create_run(settings, stage, training.devices, place and place / stage) for stage in stages
        }
        pairs.append(Pair(runs["inter"], runs.get("intra")))
    return pairs


def plan_pairs(folder: Path, assignments: Sequence[str]) -> list[dict[str, Continuation]]:
    """How the pairs in ``folder`` go on: a plan per stage, for each pair.

    Args:
        folder: What ``calr train`` made.
        assignments: ``KEY=VALUE`` texts of ``--set``.

    Raises:
        CheckpointError: Not such a folder, or a single pair that is finished.
        ConfigError: A setting that may not change, or not in this way.
    """
    from calr_cli.runs.resume import nothing_to_resume, plan_continuation

    places = sorted(folder.glob("seed*/inter"), key=lambda place: (len(place.parent.name), place))
    several = bool(places)
    plans = []
    for place in [place.parent for place in places] or [folder]:
        if not (place / "inter" / "config.yaml").is_file():
            raise CheckpointError(
                f"{folder} is not a folder of calr train: there is no {place}/inter/config.yaml",
                "Give what was its --output, or a run folder to train-intra or train-inter",
            )
        stages = [stage for stage in STAGES if (place / stage).is_dir()]
        plans.append({stage: plan_continuation(place / stage, stage, assignments) for stage in stages})
    if not several and all(plan.finished for plan in plans[0].values()):
        raise nothing_to_resume(plans[0]["inter"], "inter")
    return plans


def continue_pairs(
    plans: Sequence[Mapping[str, Continuation]], training: Training, reporter: Reporter
) -> list[Pair]:
    """The pairs that go on, with that written down in each run that is not finished.

    Raises:
        CheckpointError: A run that cannot go on; nothing is written down then.
        ConfigError: Stage 2 cannot cluster here.
    """
    from calr_cli.method.both import Pair
    from calr_cli.method.clusters import build_clustering
    from calr_cli.runs.resume import begin_continuation, require_resumable

    build_clustering(training.settings, reporter)
    unfinished = [plan for stages in plans for plan in stages.values() if not plan.finished]
    for plan in unfinished:
        require_resumable(plan.run, training.dataset.train)
    for plan in unfinished:
        begin_continuation(plan, training.devices, reporter)
        reporter = SilentReporter()  # what changed for one of them changed for all
    return [Pair(stages["inter"].run, stages["intra"].run if "intra" in stages else None) for stages in plans]


def train_pair(training: Training, pair: Pair, reporter: Reporter, again: str = "") -> dict[str, Any]:
    """Both stages, but for what is finished; the summaries of those that ran.

    Args:
        training: Dataset and devices.
        pair: The runs, with their settings.
        reporter: Hears the progress.
        again: The command that goes on with them; "": commands for the single runs.

    Raises:
        CalrError: Training cannot go on.
    """
    from calr_cli.method.both import train_both

    with resumable(lambda: [again] if again else commands_left(pair, training.machine)):
        return train_both(pair, training.dataset, training.devices, reporter)
