"""The answers of a search as one page that works offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from calr_cli.errors import DataError
from calr_cli.evaluation.calibration import in_percent
from calr_cli.report.thumbnails import thumbnail


def search_page(result: Mapping[str, Any]) -> str:
    """HTML of the answers that ``calr search --json`` prints, with the images."""
    pictures: dict[str, str | None] = {}

    def picture(path: str) -> str | None:
        if path not in pictures:
            try:
                pictures[path] = thumbnail(Path(path))
            except DataError:  # a file of features may come from another machine
                pictures[path] = None
        return pictures[path]

    environment = Environment(
        loader=PackageLoader("calr_cli.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # File names need not be text; what is not becomes a question mark.
    template = environment.get_template("search.html")
    page = template.render(result, picture=picture, in_percent=in_percent)
    return page.encode("utf-8", "replace").decode("utf-8")
