"""The images of an identity of a gallery, as one page that works offline."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence

from calr_cli.report.rendering import render_as_utf8


def gallery_page(title: str, images: Sequence[tuple[int, str, str, bytes]]) -> str:
    """HTML of images as `GalleryFile.images_of` gives them."""
    shown = [
        (f"data:image/jpeg;base64,{b64encode(jpeg).decode('ascii')}", path, camera)
        for _, path, camera, jpeg in images
    ]
    return render_as_utf8("gallery.html", title=title, images=shown)
