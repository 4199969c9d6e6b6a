"""``calr embed``: features of whatever images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calr_cli.cli import options
from calr_cli.cli.console import print_json, print_table, reporter_for
from calr_cli.cli.trained import Resume, open_trained

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
    from calr_cli.use.image_lists import list_images

    reporter = reporter_for(quiet)
    check_feature_output(output, [resume, *images])
    paths = list_images(images, reporter)
    embedder = open_trained(resume, options.setting_flags(context, "evaluation"), device, reporter)
    features, failed = embedder.embed(paths, "embedding", reporter)
    write_features(output, features)
    count, dim = features.rows.shape
    if json:
        print_json({"output": str(output), "images": count, "dim": dim, "failed": failed})
    else:
        cells = [str(output), f"{count:,}", str(dim), f"{len(failed):,}"]
        print_table(["features", "images", "dimensions", "failed"], [cells])
