"""Made-up cameras: each has its own place, framing, colours, sharpness and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from calr_cli.prepare.datasets.people import Colour, shade

PANORAMA = (320, 176)  # pixels; every photograph shows a window of it
HORIZON = 96
_MARGIN = 0.14  # share of the width cut off on each side: a detector's box is tight
_HAZE = 0.42  # share of one and the same grey in every place, so that a place does not outshine a person


@dataclass(frozen=True)
class Camera:
    """What all images of one camera share.

    Attributes:
        panorama: The place, an RGB picture of size ``PANORAMA``.
        gains: (3,) factors of red, green and blue.
        brightness: Factor of all channels.
        contrast: Factor around mid-grey.
        gamma: Exponent of the tone curve.
        saturation: 0 is grey, 1 leaves colours as they are.
        blur: Standard deviation in pixels.
        noise: Standard deviation in grey levels.
        zoom: Height of a person as a share of the image.
        ground: Where the soles stand, as a share of the image height.
        light: Brighter on the right (positive) or the left (negative).
    """

    panorama: Image.Image
    gains: npt.NDArray[np.float64]
    brightness: float
    contrast: float
    gamma: float
    saturation: float
    blur: float
    noise: float
    zoom: float
    ground: float
    light: float


def make_cameras(count: int, rng: np.random.Generator) -> list[Camera]:
    """Invent ``count`` cameras whose properties are spread evenly, so that no two are alike.

    The ranges are chosen so that an untrained network finds the camera before the person, yet some of
    its neighbours are right; the tests hold both.
    """

    def spread(low: float, high: float) -> list[float]:
        return [float(value) for value in rng.permutation(np.linspace(low, high, count))]

    hues = np.array(spread(0, 2 * np.pi * (1 - 1 / count))) + rng.uniform(0, 2 * np.pi)
    casts = 1 + 0.055 * np.cos(hues[:, None] - 2 * np.pi / 3 * np.arange(3))
    places = rng.permutation(len(PLACES))
    brightness, contrast, gamma = spread(0.94, 1.08), spread(0.92, 1.05), spread(0.95, 1.07)
    saturation, blur, noise = spread(0.75, 1.05), spread(0.2, 0.6), spread(2, 6)
    zoom, ground, light = spread(0.85, 0.94), spread(0.96, 0.99), spread(-0.15, 0.15)
    return [
        Camera(
            panorama=_draw_place(int(places[c % len(PLACES)]), rng),
            gains=casts[c],
            brightness=brightness[c],
            contrast=contrast[c],
            gamma=gamma[c],
            saturation=saturation[c],
            blur=blur[c],
            noise=noise[c],
            zoom=zoom[c],
            ground=ground[c],
            light=light[c],
        )
        for c in range(count)
    ]


def photograph(person: Image.Image, camera: Camera, where: float, rng: np.random.Generator) -> Image.Image:
    """Put a drawn ``person`` (RGBA) at ``where`` (0..1) along the place: an RGB picture of the same size."""
    width, height = person.size
    x = round(where * (PANORAMA[0] - width))
    y = int(rng.integers(PANORAMA[1] - height - 16, PANORAMA[1] - height + 1))
    picture = camera.panorama.crop((x, y, x + width, y + height))
    silhouette = person.getchannel("A")
    shadow = silhouette.resize((width, height // 8)).point(lambda alpha: alpha // 3)
    box = person.getbbox() or (0, 0, width, height)
    foot = min(box[3], height) - height // 12
    picture.paste((0, 0, 0), (round(camera.light * 16), foot), shadow)
    picture.paste(person, mask=silhouette)
    margin = round(width * _MARGIN)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC, (margin, 0, width - margin, height))
    picture = picture.filter(ImageFilter.GaussianBlur(camera.blur * rng.uniform(0.8, 1.2)))
    return Image.fromarray(_expose(np.asarray(picture, np.float64) / 255, camera, rng))


def _expose(
    pixels: npt.NDArray[np.float64], camera: Camera, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    grey = pixels.mean(axis=2, keepdims=True)
    pixels = grey + camera.saturation * (pixels - grey)
    slope = np.linspace(-camera.light, camera.light, pixels.shape[1])[None, :, None]
    weather = rng.uniform(0.86, 1.14)  # light changes a little inside a camera, too
    pixels = pixels * camera.gains * rng.uniform(0.96, 1.04, 3) * camera.brightness * weather * (1 + slope)
    pixels = np.clip(0.5 + camera.contrast * (pixels - 0.5), 0, 1) ** camera.gamma
    pixels = 255 * pixels + rng.normal(0, camera.noise, pixels.shape)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


# Walls, floors and what stands on them. Places share colours, so that a place alone is no camera's mark.
WALLS = ((156, 132, 116), (150, 170, 180), (190, 186, 176), (118, 122, 130), (140, 142, 134))
FLOORS = ((126, 124, 120), (122, 130, 108), (142, 137, 128), (112, 112, 118))
DETAILS = ((70, 82, 98), (62, 88, 56), (120, 94, 72), (186, 178, 160), (86, 66, 66))


def _draw_place(favourite: int, rng: np.random.Generator) -> Image.Image:
    """A street of houses, trees, doors and pillars; half of it is of the ``favourite`` kind."""
    width, height = PANORAMA
    picture = Image.new("RGB", PANORAMA, FLOORS[favourite])
    pen = ImageDraw.Draw(picture)
    x = 0
    while x < width:
        kind = favourite if rng.random() < 0.5 else int(rng.integers(len(PLACES)))
        stretch = int(rng.integers(50, 90))
        wall, detail = (palette[int(rng.integers(len(palette)))] for palette in (WALLS, DETAILS))
        pen.rectangle((x, 0, x + stretch, HORIZON), wall)
        for left in range(x + 6, x + stretch - 16, 30):
            PLACES[kind](pen, left, detail)
        x += stretch
    for y in range(HORIZON + 8, height, 14):  # joints of the paving
        pen.line((0, y, width, y), shade(FLOORS[favourite], 0.85))
    grain = rng.normal(0, 5, (height, width, 1))
    faded = (1 - _HAZE) * np.asarray(picture, np.float64) + _HAZE * 128
    return Image.fromarray(np.clip(faded + grain, 0, 255).astype(np.uint8))


def _windows(pen: ImageDraw.ImageDraw, x: int, colour: Colour) -> None:
    for y in (8, 46):
        pen.rectangle((x, y, x + 18, y + 26), colour)
        pen.line((x + 9, y, x + 9, y + 26), shade(colour, 1.4))


def _tree(pen: ImageDraw.ImageDraw, x: int, colour: Colour) -> None:
    pen.rectangle((x + 10, 40, x + 15, HORIZON + 6), (84, 66, 50))
    pen.ellipse((x - 10, 10, x + 34, 58), (max(colour[0] - 20, 0), colour[1], max(colour[2] - 20, 0)))


def _door(pen: ImageDraw.ImageDraw, x: int, colour: Colour) -> None:
    pen.rectangle((x, 34, x + 22, HORIZON), colour)
    pen.ellipse((x + 3, 66, x + 6, 69), (220, 200, 120))


def _pillar(pen: ImageDraw.ImageDraw, x: int, colour: Colour) -> None:
    pen.rectangle((x, 0, x + 10, HORIZON + 4), colour)
    pen.rectangle((x + 7, 0, x + 10, HORIZON + 4), shade(colour, 0.8))


PLACES = (_windows, _tree, _door, _pillar)
