"""``calr evaluate``: retrieval quality of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calr_cli.cli import options
from calr_cli.cli.console import print_json, print_table, reporter_for
from calr_cli.cli.start import devices_of, resolved_settings, show_config
from calr_cli.errors import CheckpointError, ConfigError
from calr_cli.events import Reporter

if TYPE_CHECKING:
    from calr_cli.config.loading import ResolvedSettings

FROM_MODEL = ("arch", "pooling", "height", "width")
"""What a model file says by itself."""

MEASURES = ("mAP", "Rank-1", "Rank-5", "Rank-10")


def evaluate(
    context: typer.Context,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="FILE",
            help="model file; a bare name is looked for in the newest finished run too",
        ),
    ] = None,
    rerank: options.Rerank = False,
    dataset: options.Dataset = None,
    arch: options.Arch = None,
    batch_size: options.ExtractionBatchSize = None,
    workers: options.Workers = None,
    height: options.Height = None,
    width: options.Width = None,
    pooling: options.Pooling = None,
    pretrained: options.Pretrained = None,
    seed: options.Seed = None,
    set_: options.Set = None,
    config: options.Config = None,
    print_config: options.PrintConfig = False,
    gpus: options.Gpus = None,
    device: options.Device = None,
    processes: options.Processes = None,
    root: options.Root = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure mAP and Rank-1, -5, -10 of a trained model, or of an untrained one (-a, --pretrained)."""
    reporter = reporter_for(quiet)
    if resume is None and pretrained is None:
        raise ConfigError(
            "which model? Neither --resume nor --pretrained was given",
            "Give --resume FILE, or -a ARCH and --pretrained imagenet, none or a file",
        )
    if resume is not None and pretrained is not None:
        raise ConfigError("--resume and --pretrained contradict each other", "Give one of them")
    if resume is not None:
        file, resolved = find_trained(resume, context.params, reporter)
    else:
        file, resolved = None, resolved_settings(context.params, "evaluation")
    if print_config:
        show_config(resolved, json)
        return
    from calr_cli.data.prepared import load_dataset
    from calr_cli.files import calr_home
    from calr_cli.pipelines.build import check_start
    from calr_cli.pipelines.processes import run_evaluation

    settings = resolved.settings
    devices = devices_of(context.params, reporter)
    images = load_dataset(settings.data.dataset, root, reporter)
    model = check_start(settings) if file is None else str(file)
    reporter.note(f"model: {model}")
    logs = calr_home() / "logs" / "evaluate"
    result = {
        "model": model,
        **run_evaluation(settings, file, images, rerank, devices, logs, reporter),
    }
    if json:
        print_json(result)
    else:
        show_metrics(result)


def find_trained(name: str, params: Mapping[str, Any], reporter: Reporter) -> tuple[Path, ResolvedSettings]:
    """A model file, and settings that agree with both the file and the flags.

    Raises:
        CheckpointError: No such file, not a model, or a flag that contradicts it.
        ConfigError: A wrong setting or dataset.
    """
    from calr_cli.data.names import resolve_dataset_name
    from calr_cli.pipelines.run_dir import find_model
    from calr_cli.training.checkpoint import load_model

    dataset = resolve_dataset_name(params["dataset"]) if params["dataset"] is not None else None
    path = find_model(name, dataset)
    if str(path) != name:
        reporter.note(f"{name} is not here: taking {path}")
    card = load_model(path)[1]
    if differing := [
        f"{path} has {name} {getattr(card, name)}, not {params[name]}"
        for name in FROM_MODEL
        if params[name] not in (None, str(getattr(card, name)))
    ]:
        raise CheckpointError(differing, "Leave these flags out: the model knows them")
    known = {options.SETTING_FLAGS[name][0]: (str(path), getattr(card, name)) for name in FROM_MODEL}
    params = {**params, "dataset": dataset or card.dataset}
    return path, resolved_settings(params, "evaluation", known)


def show_metrics(result: Mapping[str, Any]) -> None:
    """Retrieval figures as a table, in percent."""
    title = f"{result['dataset']}, re-ranked" if result["rerank"] else result["dataset"]
    counts = [f"{result[key]:,}" for key in ("queries", "gallery")]
    print_table(
        ["dataset", *MEASURES, "queries", "gallery"],
        [[title, *(f"{result[key]:.1f}" for key in MEASURES), *counts]],
    )
