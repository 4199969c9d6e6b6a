"""``calr evaluate``: retrieval quality of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calr_cli.cli import completion, options
from calr_cli.cli.console import print_json, print_paths, print_table, print_text, reporter_for
from calr_cli.cli.next_steps import after_evaluation, print_next
from calr_cli.cli.ranks import on_main
from calr_cli.cli.request import Machine, Request, show_config
from calr_cli.errors import CheckpointError, ConfigError
from calr_cli.events import Reporter

if TYPE_CHECKING:
    from calr_cli.config.loading import ResolvedSettings
    from calr_cli.models.foreign import ForeignWeights
    from calr_cli.training.checkpoint import ModelCard

MEASURES = ("mAP", "Rank-1", "Rank-5", "Rank-10")


def evaluate(
    context: typer.Context,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="FILE",
            help="model file, of calr or of another program; a bare name is looked for in the newest "
            "finished run too",
            autocompletion=completion.models,
        ),
    ] = None,
    rerank: options.Rerank = False,
    per_camera: options.PerCamera = False,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="learn what its similarities mean, and keep that in the model file for search and compare; "
            "from identities, or label-free from clusters where there are none",
        ),
    ] = False,
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
    threads: options.Threads = None,
    root: options.Root = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure mAP and Rank-1, -5, -10 of a trained model, or of an untrained one (-a, --pretrained).

    Examples:
        calr evaluate --resume model.pth
        calr evaluate --resume model.pth --calibrate
        calr evaluate -d veri -a resnet50 --pretrained imagenet
    """
    reporter = reporter_for(quiet)
    machine = Machine(gpus, device, processes, root, threads)
    flags = options.setting_flags(context, "evaluation")
    request = Request(dataset, config, assignments=set_ or (), flags=flags)
    if resume is None and pretrained is None:
        raise ConfigError(
            "which model? Neither --resume nor --pretrained was given",
            "Give --resume FILE, or -a ARCH and --pretrained imagenet, person, none or a file",
        )
    if resume is not None and pretrained is not None:
        raise ConfigError("--resume and --pretrained contradict each other", "Give one of them")
    if calibrate and resume is None:
        raise ConfigError("--calibrate is for a trained model, which keeps the result", "Give --resume FILE")
    if calibrate and per_camera:
        raise ConfigError(
            "--calibrate and --per-camera contradict each other: probabilities are of features as they are",
            "Give one of them",
        )
    if resume is not None:
        file, card, resolved = find_trained(resume, request, reporter)
    else:
        file, card, resolved = None, None, settings_of_pretrained(str(pretrained), request)
    if print_config:
        show_config(resolved, json)
        return
    from calr_cli.evaluation.camera_bias import CameraBias
    from calr_cli.files import calr_home
    from calr_cli.method.build import check_start
    from calr_cli.method.evaluate import warn_if_trained_on_others
    from calr_cli.prepare.prepared import load_dataset
    from calr_cli.use.evaluating import run_evaluation

    if calibrate and file is not None:
        on_main(lambda: require_own(file))
    settings = resolved.settings
    devices = machine.devices(reporter)
    images = load_dataset(settings.data.dataset, root, reporter)
    model = check_start(settings) if file is None else str(file)
    reporter.note(f"model: {model}")
    others = False
    if file is not None and card is not None:
        others = on_main(lambda: warn_if_trained_on_others(file, card, images, reporter))
    logs = calr_home() / "logs" / "evaluate"
    result = {
        "model": model,
        **run_evaluation(settings, file, images, rerank, devices, logs, reporter, calibrate, per_camera),
    }
    if file is not None and not others:
        on_main(lambda: keep_figures(file, result, reporter))
    if calibrate and file is not None:
        on_main(lambda: keep_calibration(file, result["calibration"]))
    warn_of_unmatched(result, len(images.query), reporter)
    if json:
        print_json(result)
    else:
        if "mAP" in result:
            show_metrics(result)
            if result["cameras"]:
                reporter.note(f"cameras: {CameraBias(**result['cameras'])}")
        if calibrate:
            show_calibration(result["calibration"])
            reporter.note(f"kept in {file}")
    if file is not None:
        print_next(quiet, *after_evaluation(file, images, request, machine))


def find_trained(
    name: str, request: Request, reporter: Reporter
) -> tuple[Path, ModelCard | None, ResolvedSettings]:
    """A model file, its card (None: of another program), and settings that agree with file and flags.

    Raises:
        CheckpointError: No such file, no network that calr recognises, or a flag that contradicts it.
        ConfigError: A wrong setting or dataset.
    """
    from calr_cli.models.foreign import ForeignWeights
    from calr_cli.prepare.names import resolve_dataset_name
    from calr_cli.runs.find import find_model
    from calr_cli.training.checkpoint import open_model
    from calr_cli.use.embedding import FROM_MODEL, refuse_other_network

    dataset = None if request.dataset is None else resolve_dataset_name(request.dataset)
    path = find_model(name, dataset)
    if str(path) != name:
        reporter.note(f"{name} is not here: taking {path}")
    opened = open_model(path)
    if isinstance(opened, ForeignWeights):
        return path, None, settings_of_foreign(opened, request, reporter)
    card = opened[1]
    asked = {name: request.flags[key][1] for name, key in FROM_MODEL.items() if key in request.flags}
    refuse_other_network(path, card, asked)
    known = {key: (str(path), getattr(card, name)) for name, key in FROM_MODEL.items()}
    return path, card, replace(request, dataset=dataset or card.dataset).resolve(known)


def settings_of_foreign(weights: ForeignWeights, request: Request, reporter: Reporter) -> ResolvedSettings:
    """Settings that agree with a file of another program, but for what the user decides; says which.

    Raises:
        ConfigError: A wrong setting, or no dataset: the file does not know it.
    """
    from calr_cli.models.foreign import describe, describe_input
    from calr_cli.use.embedding import recognised

    resolved = with_recognised(weights.path, recognised(weights), request)
    settings = resolved.settings
    data = settings.data
    described = describe(weights, settings.model.arch, settings.model.pooling)
    reporter.note(f"{described}; {describe_input(weights, data.height, data.width)}")
    return resolved


def settings_of_pretrained(source: str, request: Request) -> ResolvedSettings:
    """Settings with the network of the weights in ``source``, where that is a file.

    Raises:
        ConfigError: A wrong setting, or no dataset.
        WeightsError: A file without a network that calr recognises.
    """
    path = Path(source).expanduser()
    # A missing file is reported together with wrong settings.
    if source in ("imagenet", "person", "none") or not path.exists():
        return request.resolve()
    from calr_cli.models.pretrained import read_weights

    weights = read_weights(path)
    network = {"model.arch": weights.arch, "model.pooling": weights.pooling}
    return with_recognised(path, {key: value for key, value in network.items() if value is not None}, request)


def with_recognised(path: Path, recognised: Mapping[str, Any], request: Request) -> ResolvedSettings:
    """Settings with what was recognised in a file, where the user decided nothing else."""
    resolved = request.resolve()
    known = {
        key: (str(path), value)
        for key, value in recognised.items()
        if resolved.origins[key].startswith(("default", "family ", "preset "))
    }
    return request.resolve(known)


def warn_of_unmatched(result: Mapping[str, Any], queries: int, reporter: Reporter) -> None:
    """Warn of queries that the figures leave out, because nothing in the gallery answers them."""
    counted = result.get("queries", queries)
    if counted < queries:
        reporter.warning(
            f"{queries - counted:,} of {queries:,} queries do not count: no gallery image is of their "
            "identity and another camera"
        )


def show_metrics(result: Mapping[str, Any]) -> None:
    """Retrieval figures as a table, in percent."""
    ways = {"re-ranked": result["rerank"], "per camera": result.get("per_camera")}
    title = ", ".join([result["dataset"], *(way for way, taken in ways.items() if taken)])
    counts = [f"{result[key]:,}" for key in ("queries", "gallery")]
    print_table(
        ["dataset", *MEASURES, "queries", "gallery"],
        [[title, *(f"{result[key]:.1f}" for key in MEASURES), *counts]],
    )


def require_own(file: Path) -> None:
    """Raise unless a calibration can be kept in the file.

    Raises:
        CheckpointError: Another program wrote it.
        OSError: It cannot be written.
    """
    from calr_cli.files import require_writable
    from calr_cli.models.foreign import ForeignWeights
    from calr_cli.training.checkpoint import open_model

    if isinstance(open_model(file), ForeignWeights):
        raise CheckpointError(
            f"{file} was written by another program: calr keeps no calibration in it",
            "Leave --calibrate out: search and compare give similarities",
        )
    require_writable(file)


def keep_calibration(file: Path, calibration: Mapping[str, Any]) -> None:
    """Write the model file again, with its calibration.

    Raises:
        OSError: It cannot be written.
    """
    from calr_cli.training.checkpoint import load_model, save_model

    encoder, card = load_model(file)
    save_model(file, encoder, replace(card, calibration=calibration))


def keep_figures(file: Path, result: Mapping[str, Any], reporter: Reporter) -> None:
    """Keep what was measured of a run's model, on the run's dataset, in its folder, for `calr runs`."""
    from calr_cli.runs.folder import RunFolder

    run = RunFolder(file.parent)
    if file != run.model or "mAP" not in result or result["rerank"] or result["per_camera"]:
        return
    try:
        if run.read_environment()["settings"]["data.dataset"] == result["dataset"]:
            others = ("model", "calibration")
            run.write_evaluation({name: result[name] for name in result if name not in others})
    except (CheckpointError, KeyError):
        return  # a model without its run
    except OSError as error:
        reporter.note(f"the figures are not kept in {run.evaluation}: {error.strerror}")


def show_calibration(values: Mapping[str, Any]) -> None:
    """What it was learnt from, the threshold, and predicted against observed shares of held-out pairs."""
    from calr_cli.evaluation.calibration import EVEN_ODDS, Calibration

    calibration = Calibration.from_dict(values)
    fitted = calibration.reliability
    print_paths(
        {
            "calibrated": calibration.origin,
            "pairs": f"{calibration.same_pairs:,} same, {calibration.different_pairs:,} different",
            "threshold": f"{calibration.similarity_at(EVEN_ODDS):.3f} at even odds",
            "expected calibration error": f"{fitted.error:.3f}",
        }
    )
    columns = zip(fitted.predicted, fitted.observed, fitted.weight, strict=True)
    rows = [[f"{100 * value:.1f}" for value in row] for row in columns]
    print_text("")
    print_table(["predicted %", "observed %", "of the pairs %"], rows, numbers_from=0)
