"""Settings that follow a user's own images, where nobody gave a value: one rule for each, a pure function.

The published settings were chosen for sets of 13,000 to 38,000 images. Each rule gives about these values for
sets of that size, and says what it holds on to in smaller and larger sets, and for images of other shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from calr_cli.config.layers import Given, Layer
from calr_cli.config.schema import Settings
from calr_cli.errors import DataError

AUTO = "auto"
"""The value of a setting that follows the data; its origin begins with it."""


@dataclass(frozen=True)
class OwnImages:
    """What the rules know of the training images.

    Attributes:
        images: Their number.
        cameras: Number of cameras that took some of them.
        width: Median, in pixels.
        height: Median, in pixels.
    """

    images: int
    cameras: int
    width: int
    height: int

    @property
    def per_camera(self) -> int:
        """Images of a camera, on average."""
        return self.images // max(self.cameras, 1)

    def __str__(self) -> str:
        cameras = f"{self.cameras} camera{'s' * (self.cameras != 1)}"
        return f"{self.images:,} images of {cameras}, median {self.height} x {self.width} pixels"


def own_images(name: str) -> OwnImages | None:
    """What is known of dataset ``name``, if it is a user's own prepared images; None of any other.

    Raises:
        DataError: It is not known any more.
    """
    # Imported here: a list of runs reads settings too, and does without NumPy.
    from calr_cli.prepare.card import read_card
    from calr_cli.prepare.names import own_dataset_names

    if name not in own_dataset_names():
        return None
    card = read_card(name)
    if card is None:
        raise DataError(f"the card of {name} is damaged", "Run `calr prepare-data` with its images again")
    train, sizes = card.splits["train"], card.sizes
    return OwnImages(train.images, train.cameras, sizes.width[1], sizes.height[1])


def input_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of the network's input: the shape of the median image, at most twice its size.

    Source: the field enlarges Market-1501's images of 128 x 64 to 256 x 128 pixels, and takes no larger area.
    The sides are multiples of 16, the stride of the backbones; none is longer than four times the other.

    >>> input_size(128, 64), input_size(300, 300), input_size(1080, 1920), input_size(40, 20)
    ((256, 128), (176, 176), (128, 240), (80, 48))
    """
    area = min(256 * 128, 4 * height * width)
    ratio = min(max(height / width, 1 / 4), 4.0)

    def side(pixels: float) -> int:
        return max(32, int(pixels / 16 + 1 / 2) * 16)  # half of them up

    return side(math.sqrt(area * ratio)), side(math.sqrt(area / ratio))


def batch_size(images: int, usual: int) -> int:
    """Images in a batch: at most an eighth of all, so that the batches of an epoch differ.

    Source: ours; from ``usual``, the published size, it is halved as often as necessary, but not below 16.

    >>> [batch_size(images, 256) for images in (20, 500, 1200, 2048, 100_000)]
    [16, 32, 128, 256, 256]
    """
    size = usual
    while size > 16 and size > images / 8:
        size //= 2
    return size


def num_instances(batch_size: int) -> int:
    """Images of a cluster in a batch: of 16 clusters, but not fewer than 4.

    Source: the released program takes 16 clusters in both stages, 4 of 64 images and 16 of 256.

    >>> [num_instances(size) for size in (2, 16, 64, 128, 256)]
    [2, 4, 4, 8, 16]
    """
    return min(batch_size, max(4, batch_size // 16))


def iterations(images: int, batch_size: int, usual: int) -> int:
    """Batches in an epoch: every image is seen about three times, in large sets once.

    Source: with the published settings an image is seen 2.7 to 6 times in an epoch. There are no more batches
    than ``usual``, the published number, unless an image would be seen less than once.

    >>> [iterations(images, 256, 400) for images in (2048, 20_000, 34_000, 60_000, 200_000)]
    [24, 235, 399, 400, 782]
    """
    once, three_times = (math.ceil(times * images / batch_size) for times in (1, 3))
    return max(1, once, min(three_times, usual))


def reciprocal_neighbours(images: int) -> int:
    """k1, the nearest images that make a reciprocal set: the square root of those that are searched.

    Source: ours. The released 30 are for about 1,000 to 2,000 images of a camera, and VeRi-776's and the
    synthetic set's 15 for fewer of an identity; 6 is k2, above which k1 has to stay.

    >>> [reciprocal_neighbours(images) for images in (10, 100, 300, 900, 100_000)]
    [6, 10, 17, 30, 30]
    """
    return min(30, max(6, math.isqrt(images)))


def min_cluster_size(images: int, cameras: int) -> int:
    """Images that make a cluster: the released 5, fewer in small sets and with few cameras.

    Source: ours. Whoever walks through two cameras may be in as few as four images; and of a set of some
    hundred images, too many would be left out.

    >>> [min_cluster_size(images, cameras) for images, cameras in ((60, 4), (2000, 1), (2000, 2), (2000, 3))]
    [2, 2, 4, 5]
    """
    return min(5, max(2, min(images // 50, 2 * cameras)))


def follow(own: OwnImages, given: Layer) -> Layer:
    """The settings that follow the images: value and reason, for keys that are not ``given``.

    Args:
        own: The images.
        given: Settings that are decided; the sizes of batches among them decide what follows from them.
    """
    default, found = Settings(), {}

    def number(key: str, otherwise: int) -> int:
        """The value given, if there is one that can be right: the schema judges it later."""
        text = str(given[key].value) if key in given else ""
        return int(text) if text.isdecimal() and int(text) else otherwise

    def decide(key: str, value: int, reason: str) -> int:
        if key not in given:
            found[key] = Given(value, f"{AUTO}: {reason}")
        return number(key, value)

    height, width = input_size(own.height, own.width)
    for side, pixels in (("height", height), ("width", width)):
        decide(f"data.{side}", pixels, "the shape of the images, at most twice their size")
    stages = (("intra", default.intra, own.per_camera), ("inter", default.inter, own.images))
    for name, stage, images in stages:
        batch = decide(
            f"{name}.batch_size",
            batch_size(images, stage.batch_size),
            "at most an eighth of the images (stage 1: of a camera)",
        )
        decide(f"{name}.num_instances", num_instances(batch), "16 clusters in a batch, or 4 images of each")
        decide(
            f"{name}.iters",
            iterations(images, batch, stage.iters),
            "an epoch sees every image about three times (of many images: once)",
        )
        decide(
            f"{name}.clustering.k1",
            max(reciprocal_neighbours(images), number(f"{name}.clustering.k2", 0)),
            "the root of the number of images (stage 1: of a camera), 6 to 30",
        )
    decide(
        "inter.clustering.min_cluster_size",
        min_cluster_size(own.images, own.cameras),
        "twice the cameras and a 50th of the images, 2 to 5",
    )
    return found
