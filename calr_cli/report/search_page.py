"""The answers of a search as one page that works offline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calr_cli.errors import DataError
from calr_cli.evaluation.calibration import in_percent
from calr_cli.report.rendering import render_as_utf8
from calr_cli.report.thumbnails import address, small


@dataclass(frozen=True)
class Picture:
    """An image of the page, which has it once however often it is shown."""

    key: str
    source: str
    width: int
    height: int


def search_page(result: Mapping[str, Any]) -> str:
    """HTML of the answers that ``calr search --json`` prints, with the images."""
    pictures = _pictures(result)
    galleries = [result["gallery"]] if isinstance(result["gallery"], str) else result["gallery"]
    shown = {picture.key: picture for picture in pictures.values() if picture is not None}
    return render_as_utf8(
        "search.html",
        **result,
        galleries=", ".join(galleries),
        pictures=shown.values(),
        picture=pictures.get,
        in_percent=in_percent,
    )


def _pictures(result: Mapping[str, Any]) -> dict[str, Picture | None]:
    """By path; None where there is no image, as of features from another machine."""
    paths = dict.fromkeys(
        path
        for answer in result["queries"]
        for path in (answer["query"], *(found["path"] for found in answer["results"]))
    )
    keys: dict[str, str] = {}  # images of the same content are one
    pictures: dict[str, Picture | None] = {}
    for path in paths:
        try:
            image = small(Path(path))
        except DataError:
            pictures[path] = None
            continue
        source = address(image)
        pictures[path] = Picture(keys.setdefault(source, f"p{len(keys)}"), source, *image.size)
    return pictures
