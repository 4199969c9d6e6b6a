"""``calr cluster``: who is who in a pile of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calr_cli.cli import options
from calr_cli.cli.console import print_json, print_paths, print_table, print_text, reporter_for
from calr_cli.cli.labels import FIGURES
from calr_cli.cli.trained import Resume, calibrate_words, open_trained
from calr_cli.errors import ConfigError

if TYPE_CHECKING:
    from calr_cli.config.loading import ResolvedSettings
    from calr_cli.use.identities import Identities

HOW = "How many identities"


def cluster(
    context: typer.Context,
    resume: Resume,
    output: Annotated[
        Path, typer.Option("--output", metavar="FILE", help="identities.csv to write, a row for each image")
    ],
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGES",
            help="image files, folders, or tables (.csv, .tsv, .parquet) with columns path and, if known, "
            "camid",
        ),
    ] = None,
    pattern: options.CameraPattern = None,
    dataset: Annotated[
        str | None,
        typer.Option("-d", "--dataset", metavar="NAME", help="a prepared dataset in place of IMAGES"),
    ] = None,
    split: Annotated[
        str, typer.Option("--split", metavar="PART", help="with -d: all, train or test (query and gallery)")
    ] = "all",
    same: Annotated[
        str | None,
        typer.Option(
            "--same",
            metavar="PROBABILITY",
            help="with a calibrated model: groups are put together if two images of them show the same with "
            "this probability on average, as 80%",
            rich_help_panel=HOW,
        ),
    ] = None,
    num_identities: Annotated[
        int | None,
        typer.Option(
            "--num-identities", metavar="K", min=1, help="if you know how many", rich_help_panel=HOW
        ),
    ] = None,
    min_images: Annotated[
        int,
        typer.Option(
            "--min-images",
            metavar="N",
            min=1,
            help="images of smaller groups are outliers",
            rich_help_panel=HOW,
        ),
    ] = 2,
    recipe: options.Recipe = None,
    config: options.Config = None,
    set_: options.Set = None,
    per_camera: options.PerCamera = False,
    folders: Annotated[
        Path | None,
        typer.Option(
            "--folders",
            metavar="DIR",
            help="make a new folder with a folder for each identity, with links to its images",
            rich_help_panel="Output",
        ),
    ] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="with --folders: copies, not links", rich_help_panel="Output")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="write a page with the identities", rich_help_panel="Output"
        ),
    ] = None,
    memory_limit: options.MemoryLimit = None,
    arch: options.Arch = None,
    batch_size: options.ExtractionBatchSize = None,
    workers: options.Workers = None,
    height: options.Height = None,
    width: options.Width = None,
    pooling: options.Pooling = None,
    device: options.Device = None,
    root: options.Root = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    r"""Group images into identities, without knowing any: who is who in a pile of images.

    With --recipe, --config or --set inter.clustering..., the groups are the clusters of training.

    Examples:
        calr cluster --resume model.pth photos/ --output who.csv --html who.html
        calr cluster --resume model.pth -d veri --split test --output identities.csv
    """
    from calr_cli.files import atomic_write
    from calr_cli.use.identity_files import (
        check_folders,
        check_identity_output,
        write_folders,
        write_identities,
    )
    from calr_cli.use.outputs import PAGES, check_output

    sources = images or []
    check_request(sources, dataset, split, pattern, same, num_identities, per_camera, folders, copy)
    probability = None if same is None else parsed_probability(same)
    resolved = resolved_settings(dataset, config, set_ or (), recipe)
    given = clustering_given(resolved)
    if given and (same is not None or num_identities is not None):
        flag = "--num-identities" if same is None else "--same"
        raise ConfigError(
            f"{flag} and the clusters of training ({next(iter(given.values()))[0]}) contradict each other",
            "Give one of them",
        )
    check_identity_output(output, [resume, *sources])
    if html is not None:
        check_output("--html", html, PAGES, [resume, *sources])
    if folders is not None:
        check_folders(folders, sources)
    reporter = reporter_for(quiet)
    embedder = open_trained(
        resume, {**others_given(resolved), **options.setting_flags(context, "evaluation")}, device, reporter
    )
    if same is not None and embedder.calibration is None:
        raise ConfigError(
            f"--same {same}: this model is not calibrated, it has no probabilities",
            f"Calibrate it: {calibrate_words(resume)}, or leave --same out",
        )
    from calr_cli.prepare.prepared import load_dataset
    from calr_cli.use.by_camera import standardised
    from calr_cli.use.identities import Fineness, find_identities
    from calr_cli.use.piles import pile_of_dataset, pile_of_images

    if dataset is not None:
        pile = pile_of_dataset(embedder, load_dataset(dataset, root, reporter), split, reporter)
    else:
        pile = pile_of_images(embedder, sources, pattern, reporter)
    if per_camera:
        pile = replace(pile, features=standardised(pile.features, pile.cameras, reporter))
    fineness = Fineness(probability, num_identities, bool(given), min_images)
    found = find_identities(
        embedder.settings, pile, fineness, embedder.calibration, embedder.encoder.device, reporter
    )
    write_identities(output, found)
    result = summary_of(found, resume, output)
    if json:
        print_json(result)
    else:
        show_identities(result)
    written = {}
    if html is not None:  # after the table: a full disk must not lose it
        from calr_cli.report.contact_sheet import contact_sheet

        with atomic_write(html) as temporary:
            temporary.write_text(contact_sheet(found, resume), encoding="utf-8")
        written["page"] = html
    if folders is not None:
        write_folders(folders, found, copy)
        written["folders"] = folders
    if written and not json:
        print_paths(written)


def check_request(
    sources: list[str],
    dataset: str | None,
    split: str,
    pattern: str | None,
    same: str | None,
    num_identities: int | None,
    per_camera: bool,
    folders: Path | None,
    copy: bool,
) -> None:
    """Refuse flags that contradict each other or need one that is missing.

    Raises:
        ConfigError: One line per problem.
    """
    from calr_cli.use.piles import SPLITS

    problems = []
    if bool(sources) == (dataset is not None):
        problems.append("which images? Give IMAGES, or -d NAME, and not both")
    if split not in SPLITS:
        problems.append(f"--split {split} is none of {', '.join(SPLITS)}")
    elif split != "all" and dataset is None:
        problems.append("--split is for -d NAME, which is not given")
    if pattern is not None and dataset is not None:
        problems.append("--pattern is for IMAGES: a prepared dataset knows its cameras")
    if same is not None and num_identities is not None:
        problems.append("--same and --num-identities contradict each other: give one of them")
    if same is not None and per_camera:
        problems.append(
            "--same and --per-camera contradict each other: a model is calibrated without the latter"
        )
    if copy and folders is None:
        problems.append("--copy is for --folders DIR, which is not given")
    if problems:
        raise ConfigError(problems)


def parsed_probability(text: str) -> float:
    """The share that a percentage means.

    Raises:
        ConfigError: It is none between 0 and 100.
    """
    try:
        value = float(text.removesuffix("%")) / 100 if text.endswith("%") else float("nan")
    except ValueError:
        value = float("nan")
    if not 0 < value < 1:
        raise ConfigError(f"--same {text} is not a probability", "Write for instance --same 80%")
    return value


Settings = Mapping[str, tuple[str, Any]]
"""Dotted key -> (where it was given, value)."""


def resolved_settings(
    dataset: str | None, config: Path | None, assignments: list[str] | tuple[()], recipe: str | None
) -> ResolvedSettings:
    """The settings of the flags, above the preset of the dataset.

    Raises:
        ConfigError: A wrong setting, or a dataset that does not exist.
    """
    from calr_cli.config.loading import resolve_settings
    from calr_cli.prepare.names import resolve_dataset_name

    name = None if dataset is None else resolve_dataset_name(dataset)
    return resolve_settings(name, config, assignments, recipe=recipe)


def others_given(resolved: ResolvedSettings) -> Settings:
    """What is not a default, and of a preset the settings of clusters alone: all else the model says."""
    from calr_cli.config.loading import flat_settings

    flat = flat_settings(resolved.settings)
    return {
        key: (origin, flat[key])
        for key, origin in resolved.origins.items()
        if not origin.startswith(("default", "preset", "-d"))
        or (origin.startswith("preset") and key.startswith("inter.clustering."))
    }


def clustering_given(resolved: ResolvedSettings) -> Settings:
    """The settings of training's clusters among the flags."""
    return {
        key: (origin, value)
        for key, (origin, value) in others_given(resolved).items()
        if key.startswith(("inter.clustering.", "plugin")) and not origin.startswith("preset")
    }


def summary_of(found: Identities, resume: str, output: Path) -> dict[str, Any]:
    """What ``--json`` prints."""
    from calr_cli.clustering.quality import label_quality
    from calr_cli.types import UNKNOWN_PID

    pile, sizes = found.pile, found.sizes
    result: dict[str, Any] = {
        "model": resume,
        "output": str(output),
        "images": len(pile.paths),
        "identities": len(sizes),
        "outliers": len(pile.paths) - int(sizes.sum()),
        "duplicates": sum(repeated is not None for repeated in found.repeats),
        "largest": int(sizes.max(initial=0)),
        "cameras": None if found.bias is None else asdict(found.bias),
        "failed": pile.failed,
    }
    if pile.pids is not None and (known := pile.pids != UNKNOWN_PID).any():
        result["quality"] = asdict(label_quality(found.labels[known], pile.pids[known]))
    return result


def show_identities(result: Mapping[str, Any]) -> None:
    """The numbers of identities, how good they are where that is known, and how far they follow cameras."""
    from calr_cli.evaluation.camera_bias import CameraBias

    counts = ("images", "identities", "outliers", "duplicates", "largest")
    print_table(["table", *counts], [[result["output"], *(f"{result[key]:,}" for key in counts)]])
    if quality := result.get("quality"):
        print_text("")
        known = [f"{quality['num_' + key]:,}" for key in ("images", "identities")]
        figures = [f"{quality[key]:.3f}" for key in FIGURES.values()]
        print_table(["images known", "identities", *FIGURES], [[*known, *figures]], numbers_from=0)
    if result["cameras"]:
        print_paths({"cameras": CameraBias(**result["cameras"])})
