"""``calr search``: the gallery images that show what a query shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from calr_cli.cli import options
from calr_cli.cli.console import print_json, print_paths, print_table, print_text, reporter_for
from calr_cli.cli.embed import Images
from calr_cli.cli.trained import (
    Resume,
    Threshold,
    check_pattern,
    open_trained,
    similarity_threshold,
    tell_calibration,
    uncalibrated,
)


def search(
    context: typer.Context,
    images: Images,
    resume: Resume,
    gallery: Annotated[
        list[str],
        typer.Option(
            "--gallery",
            metavar="DIR|FILE",
            help="what is searched: a folder or table of images, a features.npz of `calr embed`, or a "
            "file of `calr gallery`; may be repeated",
        ),
    ],
    top: Annotated[
        int, typer.Option("-k", "--top", metavar="N", min=1, help="images listed for each query")
    ] = 10,
    threshold: Threshold = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="write a page with the images too", rich_help_panel="Output"
        ),
    ] = None,
    pattern: options.CameraPattern = None,
    per_camera: options.PerCamera = False,
    memory_limit: options.MemoryLimit = None,
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
    """List the gallery images that are most similar to each query, or say that it is unknown there.

    The features of a gallery are kept and used again as long as its images and the model stay the same.

    Examples:
        calr search --resume model.pth --gallery photos/ query.jpg
        calr search --resume model.pth --gallery photos/ lost/ --html found.html
    """
    from calr_cli.files import atomic_write
    from calr_cli.use import searching
    from calr_cli.use.by_camera import by_camera
    from calr_cli.use.image_lists import list_known_images
    from calr_cli.use.outputs import PAGES, check_output
    from calr_cli.use.verdict import possible

    reporter = reporter_for(quiet)
    if html is not None:
        check_output("--html", html, PAGES, [resume, *images, *gallery])
    check_pattern(pattern, per_camera)
    embedder = open_trained(resume, options.setting_flags(context, "evaluation"), device, reporter)
    if per_camera:
        embedder = uncalibrated(embedder, reporter)
    similarity_threshold(threshold, embedder.calibration, 0.5, resume)  # a wrong one: before the work
    known = list_known_images(images, reporter, pattern)
    searched = searching.open_gallery(embedder, gallery, reporter, pattern)
    calibration = embedder.calibration
    prior = None if calibration is None else calibration.prior_of_search(len(searched))
    least = similarity_threshold(threshold, calibration, prior or 0.5, resume)
    if not per_camera:
        tell_calibration(calibration, prior, resume, reporter)
    least = possible(least, calibration, prior, reporter)
    queries, failed = searched.embedder.embed(known, "queries", reporter)
    if per_camera:
        cameras = [known[path].get("camid", "") for path in queries.paths]
        searched, queries = by_camera(searched, queries, cameras, reporter)
    result: dict[str, Any] = {
        "model": resume,
        "gallery": gallery[0] if len(gallery) == 1 else gallery,
        "images": len(searched),
        "calibration": None if calibration is None else calibration.origin,
        "prior": prior,
        "threshold": least,
        "queries": searching.search(searched, queries, top, least),
        "failed": failed,
    }
    if json:
        print_json(result)
    else:
        show_answers(result)
    if html is not None:  # after the answers: a full disk must not lose them
        from calr_cli.report.search_page import search_page

        with atomic_write(html) as temporary:
            temporary.write_text(search_page(result), encoding="utf-8")
        if not json:
            print_paths({"page": html})


def show_answers(result: Mapping[str, Any]) -> None:
    """For each query whether it is unknown, and a table of the images found; paths, long ones, come last."""
    from calr_cli.evaluation.calibration import in_percent

    for place, answer in enumerate(result["queries"]):
        print_text(f"{chr(10) if place else ''}query: {answer['query']}")
        if answer["unknown"]:
            print_text(f"unknown: nothing reaches {result['threshold']:.3f}")
        rows = []
        for image in answer["results"]:
            verdict = {True: "same", False: "no", None: "-"}[image["same"]]
            numbers = (f"{image['similarity']:.3f}", in_percent(image["probability"]), verdict)
            rows.append([str(image["rank"]), *numbers, image["path"]])
        print_table(["rank", "similarity", "probability", "same", "image"], rows, numbers_from=5)
