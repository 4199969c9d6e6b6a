"""The images of an identity of a gallery, as one page that works offline."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined


def gallery_page(title: str, images: Sequence[tuple[int, str, str, bytes]]) -> str:
    """HTML of images as `GalleryFile.images_of` gives them."""
    environment = Environment(
        loader=PackageLoader("calr_cli.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    shown = [
        (f"data:image/jpeg;base64,{b64encode(jpeg).decode('ascii')}", path, camera)
        for _, path, camera, jpeg in images
    ]
    page = environment.get_template("gallery.html").render(title=title, images=shown)
    return page.encode("utf-8", "replace").decode("utf-8")  # file names need not be text
