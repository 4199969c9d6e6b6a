"""Features as TensorBoard's projector shows them: points with their images and what is known of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from calr_cli.data.loaders import UInt8Array
from calr_cli.files import atomic_write
from calr_cli.types import FloatArray

SAMPLE = 1000
"""Features shown at most: their file is text, and a browser draws them all."""

_HEIGHT = 64
"""Of the small images, in pixels."""

_CONFIG = """embeddings {{
  tensor_name: "features"
  tensor_path: "features.tsv"
  metadata_path: "metadata.tsv"
  sprite {{ image_path: "images.png" single_image_dim: {} single_image_dim: {} }}
}}
"""


def write_projection(
    folder: Path, features: FloatArray, pixels: UInt8Array, columns: Mapping[str, Sequence[object]]
) -> None:
    """Write the files of the projector.

    Args:
        folder: Where the event file is.
        features: (M, D).
        pixels: (M, height, width, 3) images.
        columns: Name -> M values.

    Raises:
        OSError: The folder cannot be written.
    """
    _, height, width, _ = pixels.shape
    cell = max(1, round(_HEIGHT * width / height)), _HEIGHT
    across = int(np.ceil(np.sqrt(len(pixels))))
    sprite = Image.new("RGB", (across * cell[0], -(-len(pixels) // across) * cell[1]))
    for place, image in enumerate(pixels):
        corner = place % across * cell[0], place // across * cell[1]
        sprite.paste(Image.fromarray(image).resize(cell), corner)
    rows = [columns.keys(), *zip(*columns.values(), strict=True)]
    table = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    with atomic_write(folder / "features.tsv") as temporary:
        np.savetxt(temporary, features, fmt="%.5g", delimiter="\t")
    with atomic_write(folder / "metadata.tsv") as temporary:
        temporary.write_text(table, encoding="utf-8", errors="replace")
    with atomic_write(folder / "images.png") as temporary:
        sprite.save(temporary, "PNG")
    with atomic_write(folder / "projector_config.pbtxt") as temporary:
        temporary.write_text(_CONFIG.format(*cell), encoding="utf-8")
