"""``calr labels``: local labels from elsewhere, measured, and compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from calr_cli.cli import completion, options
from calr_cli.cli.console import print_json, print_paths, print_table, reporter_for
from calr_cli.cli.next_steps import print_next
from calr_cli.cli.request import no_dataset
from calr_cli.errors import ConfigError

FORMS = "local_labels.csv, or a folder of cam<k>/pseudo_label.npy"

FIGURES = {
    "pair P": "pair_precision",
    "R": "pair_recall",
    "F": "pair_f",
    "BCubed P": "bcubed_precision",
    "R ": "bcubed_recall",
    "F ": "bcubed_f",
    "NMI": "nmi",
}
"""Columns of a score."""

Labels = Annotated[Path, typer.Argument(metavar="PATH", help=FORMS)]


def import_labels(
    path: Labels,
    dataset: options.Dataset = None,
    root: options.Root = None,
    output: Annotated[
        Path, typer.Option("--output", metavar="FILE", help="the file to write", rich_help_panel="Where")
    ] = Path("local_labels.csv"),
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write labels from elsewhere as local_labels.csv of a prepared dataset; all its images must have one.

    Example:
        calr labels import theirs.csv -d veri --output local_labels.csv
    """
    if dataset is None:
        raise no_dataset()
    if output.is_file():
        raise ConfigError(f"{output} exists already", "Choose another --output")
    from calr_cli.prepare.prepared import load_dataset
    from calr_cli.use.label_files import import_labels as take_over
    from calr_cli.use.outputs import check_output

    check_output("--output", output, (".csv",), [path])
    reporter = reporter_for(quiet)
    summary = take_over(path, load_dataset(dataset, root, reporter), output)
    reporter.note(
        f"images matched by {summary['matched_by']}, cameras counted from {summary['first_camera']}; "
        f"{summary['other_rows']} row(s) of other images"
    )
    if json:
        print_json(summary)
    else:
        parts = (*summary["per_camera"], {**summary, "camera": "all"})
        rows = [[str(part["camera"]), f"{part['images']:,}", f"{part['clusters']:,}"] for part in parts]
        print_table(["camera", "images", "clusters"], rows)
        print_paths({"local labels": output})
    print_next(quiet, ["train-inter", "-d", summary["dataset"], "--local-labels", str(output)])


def score_labels(
    path: Labels,
    dataset: Annotated[
        str | None,
        typer.Option(
            "-d",
            "--dataset",
            metavar="NAME",
            help="dataset that knows the identities; default: they start the file names",
            autocompletion=completion.datasets,
        ),
    ] = None,
    root: options.Root = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure labels against identities, camera by camera.

    Example:
        calr labels score local_labels.csv -d veri
    """
    from calr_cli.prepare.prepared import load_dataset
    from calr_cli.use.label_files import score_labels as score

    reporter = reporter_for(quiet)
    result = score(path, None if dataset is None else load_dataset(dataset, root, reporter))
    if result["dataset"] is None:
        reporter.note("identities: the numbers that the file names start with")
    if result["unlabelled"]:
        reporter.warning(
            f"{result['unlabelled']} training images of {result['dataset']} have no label: they are left out"
        )
    if json:
        print_json(result)
    else:
        show_score(result)


def show_score(result: Mapping[str, Any]) -> None:
    """A row per camera, their mean weighted by images, and pairs counted over all cameras."""
    parts = {str(camera["camera"]): camera for camera in result["per_camera"]}
    rows = []
    for name, part in (*parts.items(), ("weighted", result["weighted"]), ("pooled", result["pooled"])):
        counts = ["-"] * 4
        if "num_images" in part:
            alone = f"{100 * part['num_singletons'] / part['num_clusters']:.0f}%"
            counts = [f"{part['num_' + key]:,}" for key in ("images", "clusters", "identities")]
            counts.insert(2, alone)
        figures = [f"{part[key]:.3f}" if key in part else "-" for key in FIGURES.values()]
        rows.append([name, *counts, *figures])
    print_table(["camera", "images", "clusters", "of one", "ids", *FIGURES], rows)


def diff_labels(first: Labels, second: Labels, json: options.Json = False) -> None:
    """Compare two label files of the same images, camera by camera.

    Example:
        calr labels diff mine/local_labels.csv theirs/local_labels.csv
    """
    from calr_cli.use.label_files import diff_labels as diff

    result = diff(first, second)
    if json:
        print_json(result)
    else:
        show_diff(result)


def show_diff(result: Mapping[str, Any]) -> None:
    """A row per camera and one for all, and images that only one file has."""
    counts = ("images", "first_clusters", "second_clusters", "moved")
    total = {key: sum(camera[key] for camera in result["per_camera"]) for key in counts}
    rows = [*result["per_camera"], {**total, "camera": "all", "ari": result["ari"]}]
    print_table(
        ["camera", "images", "clusters", "clusters in second", "moved", "%", "ARI"],
        [
            [
                str(row["camera"]),
                *(f"{row[key]:,}" for key in counts),
                f"{100 * row['moved'] / row['images']:.1f}",
                f"{row['ari']:.3f}",
            ]
            for row in rows
        ],
    )
    print_paths({f"only in the {which}": f"{result['only_' + which]:,}" for which in ("first", "second")})
