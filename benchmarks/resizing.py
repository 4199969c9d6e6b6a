"""What the resize of trackers costs: mAP and cosine on the test images of a prepared dataset.

    python benchmarks/resizing.py --resume MODEL [--dataset NAME] [--json FILE]

calr resizes bicubically with smoothing, boxmot and ultralytics between the four nearest pixels. Queries and
gallery are resized in the same way, then the gallery in calr's and the queries in the trackers'. "twice as
large": the trackers' resize to twice the input's size and the mean of 2 x 2 pixels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measuring import table, write_json
from PIL import Image

from calr_cli.data.images import open_image, resized
from calr_cli.data.loaders import UInt8Array
from calr_cli.evaluation import retrieval_metrics
from calr_cli.events import SilentReporter
from calr_cli.prepare.prepared import load_dataset
from calr_cli.types import FloatArray, ImageSet
from calr_cli.use.embedding import Embedder, load_embedder
from calr_cli.use.trackers import resized_there

Resize = Callable[[Image.Image, int, int], UInt8Array]


def twice_as_large(image: Image.Image, height: int, width: int) -> UInt8Array:
    """The trackers' resize to twice the size, and the mean of 2 x 2 pixels."""
    large = resized_there(image, 2 * height, 2 * width).reshape(height, 2, width, 2, 3)
    small: UInt8Array = large.mean(axis=(1, 3)).round().astype(np.uint8)
    return small


WAYS: dict[str, Resize] = {"calr": resized, "trackers": resized_there, "twice as large": twice_as_large}


def features(embedder: Embedder, images: ImageSet, resize: Resize) -> FloatArray:
    """(N, D) unit rows."""
    data = embedder.settings.data
    pixels = [resize(open_image(images.root / path), data.height, data.width) for path in images.paths]
    return np.stack([row for row in embedder.embed_images(pixels)[0] if row is not None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resume", required=True)
    parser.add_argument("--dataset", help="default: the model's own")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    embedder = load_embedder(options.resume, device="cpu", settings={"precision": "fp32"})
    dataset = load_dataset(options.dataset or str(embedder.dataset), None, SilentReporter())
    query, gallery = dataset.query, dataset.gallery
    rows = {
        way: (features(embedder, query, resize), features(embedder, gallery, resize))
        for way, resize in WAYS.items()
    }
    ids = query.pids, gallery.pids, query.camids, gallery.camids
    found = []
    for queries, there in [
        ("calr", "calr"),
        ("trackers", "trackers"),
        ("trackers", "calr"),
        ("twice as large",) * 2,
    ]:
        metrics = retrieval_metrics(rows[queries][0], rows[there][1], *ids)
        cosine = np.einsum("nd,nd->n", rows[queries][0], rows["calr"][0])
        found.append(
            {
                "queries": queries,
                "gallery": there,
                "mAP": 100 * metrics.mAP,
                "Rank-1": 100 * metrics.cmc[0],
                "cosine with calr's": float(cosine.mean()),
                "lowest": float(cosine.min()),
            }
        )
    data = embedder.settings.data
    title = f"{dataset.name}, input {data.height} x {data.width}"
    print(table(title, found, list(found[0])))
    write_json(options.json, {"rows": found})


if __name__ == "__main__":
    main()
