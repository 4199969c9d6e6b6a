"""``calr export``: a model for programs without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calr_cli.cli import options
from calr_cli.cli.console import print_json, print_table, reporter_for
from calr_cli.cli.trained import Resume, open_trained
from calr_cli.errors import ConfigError

SUFFIX = ".onnx"


def export(
    context: typer.Context,
    resume: Resume,
    format_: Annotated[str, typer.Option("--format", metavar="NAME", help="onnx, the only one")] = "onnx",
    for_: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="NAME",
            help="boxmot, ultralytics or deepstream: a file that takes what this tracker feeds; default: "
            "images as calr reads them",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="file to write; default: the model's name, beside it"),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--images",
            metavar="IMAGES",
            help="image, folder or table of images to compare the result on, may be repeated; default: "
            "images of the dataset that the model was trained on",
        ),
    ] = None,
    arch: options.Arch = None,
    height: options.Height = None,
    width: options.Width = None,
    pooling: options.Pooling = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a model as an ONNX file that includes preprocessing, and compare it with PyTorch on images.

    Examples:
        calr export --resume model.pth --output model.onnx
        calr export --resume model.pth --images photos/
        calr export --resume model.pth --for boxmot
    """
    if format_ != "onnx":
        raise ConfigError(f"--format {format_}: not known", "Known: onnx")
    from calr_cli.runs.find import find_model
    from calr_cli.use.exporting import export_onnx
    from calr_cli.use.onnx_file import require_onnx
    from calr_cli.use.outputs import check_output
    from calr_cli.use.trackers import TRACKERS

    if for_ is not None and for_ not in TRACKERS:
        raise ConfigError(f"--for {for_}: not known", f"Known: {', '.join(TRACKERS)}")
    reporter = reporter_for(quiet)
    require_onnx()
    model = find_model(resume, None)
    output = output or model.with_name(model.name.removesuffix(".tar")).with_suffix(SUFFIX)
    check_output("--output", output, (SUFFIX,), [model, *(images or [])])
    embedder = open_trained(resume, options.setting_flags(context, "evaluation"), "cpu", reporter)
    result = export_onnx(embedder, images or [], output, reporter, TRACKERS[for_] if for_ else None)
    if json:
        print_json(result)
        return
    sizes = ", ".join(str(size) for size in result["batch_sizes"])
    compared = f"{result['images']} images ({result['images_from']})"
    reporter.note(f"compared with PyTorch in float32 on {compared}, in batches of {sizes}")
    cells = {
        "file": str(output),
        "MB": f"{result['bytes'] / 1e6:.1f}",
        "opset": str(result["opset"]),
        "input": f"{result['height']} x {result['width']}",
        "dimensions": str(result["dim"]),
        "largest difference": f"{result['largest_difference']:.1e}",
    }
    print_table(list(cells), [list(cells.values())])
    if for_:
        cosine = result["resize_cosine"]
        reporter.note(
            "resized without smoothing, as trackers do, these images have features of cosine "
            f"{cosine['mean']:.3f} with calr's, the lowest {cosine['lowest']:.3f}"
        )
        reporter.note("\n".join([f"{for_}:", *(f"  {line}" for line in result["there"])]))
