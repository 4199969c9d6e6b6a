"""``calr embed``: features of whatever images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from calr_cli.cli import options
from calr_cli.cli.console import print_json, print_table, reporter_for
from calr_cli.cli.trained import Resume, check_pattern, open_trained

Images = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGES", help="image files, folders, or tables (.csv, .tsv, .parquet) with a column path"
    ),
]


def embed(
    context: typer.Context,
    images: Images,
    resume: Resume,
    output: Annotated[
        Path, typer.Option("--output", metavar="FILE", help="features.npz, .csv or .parquet to write")
    ],
    pattern: options.CameraPattern = None,
    per_camera: options.PerCamera = False,
    arch: options.Arch = None,
    batch_size: options.ExtractionBatchSize = None,
    workers: options.Workers = None,
    height: options.Height = None,
    width: options.Width = None,
    pooling: options.Pooling = None,
    device: options.Device = None,
    threads: options.Threads = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the features of images, unit rows whose inner products are similarities.

    Example:
        calr embed --resume model.pth photos/ --output features.npz
    """
    from calr_cli.use.feature_files import check_feature_output, write_features
    from calr_cli.use.image_lists import list_known_images

    reporter = reporter_for(quiet)
    check_feature_output(output, [resume, *images])
    check_pattern(pattern, per_camera)
    known = list_known_images(images, reporter, pattern)
    embedder = open_trained(resume, options.setting_flags(context, "evaluation"), device, reporter)
    features, failed = embedder.embed(known, "embedding", reporter)
    if per_camera:
        from calr_cli.use.by_camera import standardised
        from calr_cli.use.searching import PER_CAMERA

        cameras = [known[path].get("camid", "") for path in features.paths]
        rows = standardised(features.rows, cameras, reporter)
        features = replace(features, rows=rows, model=features.model + PER_CAMERA)
    write_features(output, features)
    count, dim = features.rows.shape
    if json:
        print_json({"output": str(output), "images": count, "dim": dim, "failed": failed})
    else:
        cells = [str(output), f"{count:,}", str(dim), f"{len(failed):,}"]
        print_table(["features", "images", "dimensions", "failed"], [cells])
