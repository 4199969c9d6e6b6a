"""``calr fetch-pretrained``: get the published weights of an architecture, or list them all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from calr_cli.cli import completion, options
from calr_cli.cli.console import RichReporter, print_json, print_table, print_text
from calr_cli.errors import ConfigError, WeightsError


def fetch_pretrained(
    arch: Annotated[
        str | None,
        typer.Option(
            "-a",
            "--arch",
            metavar="ARCH",
            help=options.meaning("model.arch"),
            autocompletion=completion.choices_of("model.arch"),
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="the weights, fetched by hand: checked and taken over"),
    ] = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option(
            "--mirror",
            metavar="URL",
            help="folder with the same files, asked before the publisher; repeatable",
        ),
    ] = None,
    listing: Annotated[
        bool, typer.Option("--list", help="show the weights of every architecture and which are cached")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Download the published weights of an architecture into calr's cache, unless they are there.

    They are weights of ImageNet; of vision transformers, weights that were pretrained on images of persons.

    Examples:
        calr fetch-pretrained -a resnet50
        calr fetch-pretrained -a resnet50 --file resnet50.pth
        calr fetch-pretrained -a vit_small
    """
    if listing:
        if arch or file or mirror:
            raise ConfigError("--list shows every architecture: leave -a, --file and --mirror out")
        list_weights(json)
        return
    if arch is None:
        raise typer.BadParameter("missing. Give an architecture, or --list", param_hint="'-a' / '--arch'")
    if file and mirror:
        raise ConfigError("--file and --mirror contradict each other: give one of them")
    from calr_cli.models.released_weights import adopt_pretrained
    from calr_cli.models.released_weights import fetch_pretrained as fetch

    reporter = RichReporter(quiet)
    path = adopt_pretrained(arch, file, reporter) if file else fetch(arch, reporter, mirror or ())
    if json:
        print_json({"arch": arch, "path": str(path)})
    else:
        print_text(str(path))


def list_weights(json: bool) -> None:
    """One row per architecture; nothing is downloaded."""
    from calr_cli.models.released_weights import RELEASES, cached_weights

    weights, rows = [], []
    for arch, release in RELEASES.items():
        try:
            cached: str | None = str(cached_weights(arch))
        except WeightsError:
            cached = None
        weights.append(
            {
                "arch": arch,
                "sources": release.sources,
                "sha256": release.sha256,
                "mebibytes": release.mebibytes,
                "licence": release.licence,
                "cached": cached,
            }
        )
        size = "unknown" if release.mebibytes is None else f"{release.mebibytes:.1f} MiB"
        hosts = ", ".join(urlsplit(source).netloc for source in release.sources)
        rows.append([arch, hosts, release.licence, "yes" if cached else "no", size])
    if json:
        print_json({"weights": weights})
    else:
        print_table(["arch", "source", "licence", "cached", "size"], rows, numbers_from=4)
