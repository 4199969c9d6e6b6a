"""``calr fetch-pretrained``: download the ImageNet weights of an architecture."""

from __future__ import annotations

from typing import Annotated

import typer

from calr_cli.cli import options
from calr_cli.cli.console import RichReporter, print_json, print_text


def fetch_pretrained(
    arch: Annotated[str, typer.Option("-a", "--arch", metavar="ARCH", help=options.meaning("model.arch"))],
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Download the ImageNet weights of an architecture into calr's cache, unless they are there."""
    from calr_cli.models.pretrained import fetch_pretrained as fetch

    path = fetch(arch, RichReporter(quiet))
    if json:
        print_json({"arch": arch, "path": str(path)})
    else:
        print_text(str(path))
