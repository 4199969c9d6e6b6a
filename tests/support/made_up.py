"""Made-up folders in the layouts of the published datasets: tiny noisy JPEGs, a colour per identity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 16, 32

FLAT = {
    "market1501": ("market1501/Market-1501-v15.09.15", "bounding_box_train", "query", "bounding_box_test"),
    "dukemtmcreid": ("dukemtmcreid/DukeMTMC-reID", "bounding_box_train", "query", "bounding_box_test"),
    "veri": ("veri/VeRi", "image_train", "image_query", "image_test"),
}
MSMT17_FLAT = ("msmt17/MSMT17_V1", "bounding_box_train", "query", "bounding_box_test")
MSMT17_LISTS = {
    "V1": ("msmt17/MSMT17_V1", "train", "test"),
    "V2": ("msmt17/MSMT17_V2", "mask_train_v2", "mask_test_v2"),
}

Shot = tuple[int, int, int]
"""Identity from 0 (train before test; -1: distractors, -2: junk), camera from 1, number of the image."""


def make_layout(
    name: str,
    root: Path,
    identities: int = 8,
    images_per_identity: int = 6,
    cameras: int = 3,
    version: str = "V1",
) -> Path:
    """Write a dataset under ``root`` as its authors lay it out, and return the folder of its splits.

    Half as many identities (at least 2) are added for the test: the first image of each by each
    camera is a query. The images of an identity go round the cameras; by default each
    camera has 16 training images.

    Args:
        name: Canonical name of a published dataset.
        root: Data root.
        identities: Training identities.
        images_per_identity: Images of each identity, over all cameras.
        cameras: Cameras.
        version: For msmt17: V1, V2 or Market-like.
    """
    train = _shots(range(identities), images_per_identity, cameras)
    test = _shots(range(identities, identities + max(2, identities // 2)), images_per_identity, cameras)
    queries = [shot for shot in test if shot[2] < cameras]
    gallery = [shot for shot in test if shot[2] >= cameras]
    return write_layout(name, root, version, train, queries, gallery)


def write_layout(
    name: str,
    root: Path,
    version: str,
    train: list[Shot],
    queries: list[Shot],
    gallery: list[Shot],
    write: Callable[[Path, int, int], None] | None = None,
) -> Path:
    """Write these images where their dataset has them, by default with `write_image`."""
    write = write or write_image
    if name == "msmt17" and version != "Market-like":
        return _write_lists(root, MSMT17_LISTS[version], train, queries, gallery, write)
    folder, *splits = MSMT17_FLAT if name == "msmt17" else FLAT[name]
    for split, shots in zip(splits, (train, queries, gallery), strict=True):
        (root / folder / split).mkdir(parents=True)
        for shot in shots:
            write(root / folder / split / _file_name(name, *shot), shot[0], shot[2])
    return root / folder


def write_image(path: Path, identity: int, seed: int = 0) -> None:
    """Write one image whose colour is the identity's; other seeds give other noise."""
    colour = np.random.default_rng([7, identity]).integers(40, 215, size=3)
    noise = np.random.default_rng([seed, identity]).integers(-40, 40, size=(HEIGHT, WIDTH, 3))
    Image.fromarray((colour + noise).astype(np.uint8)).save(path)


def _shots(identities: range, images: int, cameras: int) -> list[Shot]:
    return [(identity, n % cameras + 1, n) for identity in identities for n in range(images)]


def _file_name(name: str, identity: int, camera: int, n: int) -> str:
    pid = identity + 1
    return {
        "market1501": f"{'-1' if pid < 0 else f'{pid:04d}'}_c{camera}s1_{n:06d}_00.jpg",
        "dukemtmcreid": f"{pid:04d}_c{camera}_f{n:07d}.jpg",
        "veri": f"{pid:04d}_c{camera:03d}_{n:08d}_0.jpg",
        "msmt17": f"{pid:04d}_c{camera}_{n:04d}.jpg",
    }[name]


def _write_lists(
    root: Path,
    layout: tuple[str, str, str],
    train: list[Shot],
    queries: list[Shot],
    gallery: list[Shot],
    write: Callable[[Path, int, int], None],
) -> Path:
    folder = root / layout[0]
    lists = {
        "list_train.txt": (layout[1], [shot for shot in train if shot[2]]),
        "list_val.txt": (layout[1], [shot for shot in train if not shot[2]]),
        "list_query.txt": (layout[2], queries),
        "list_gallery.txt": (layout[2], gallery),
    }
    first_test = min(identity for identity, _, _ in gallery)
    for list_name, (images, shots) in lists.items():
        lines = []
        for identity, camera, n in shots:
            pid = identity if images == layout[1] else identity - first_test  # both sides count from 0
            path = f"{pid:04d}/{pid:04d}_{n:03d}_{camera:02d}_0303morning_{n:04d}_0.jpg"
            (folder / images / path).parent.mkdir(parents=True, exist_ok=True)
            write(folder / images / path, identity, n)
            lines.append(f"{path} {pid}\n")
        (folder / list_name).write_text("".join(lines), encoding="utf-8")
    return folder
