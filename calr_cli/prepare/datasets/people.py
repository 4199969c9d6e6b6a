"""Made-up people: what stays the same in every image of one identity."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

Colour = tuple[int, int, int]
Palette = tuple[Colour, ...]

# Few enough that colours repeat: clothes alone do not tell every identity.
CLOTH: Palette = (
    (32, 32, 36), (44, 54, 84), (112, 114, 118), (226, 224, 218), (168, 42, 40), (46, 104, 66),
    (58, 110, 178), (188, 160, 118), (110, 76, 54), (222, 172, 48), (140, 82, 142), (218, 120, 52),
    (222, 142, 160), (70, 160, 160),
)  # fmt: skip
TROUSERS: Palette = (
    (34, 34, 38), (52, 66, 98), (96, 118, 158), (118, 116, 112), (182, 156, 116), (84, 62, 48),
    (210, 206, 198), (96, 102, 66), (128, 52, 56),
)  # fmt: skip
SKIN: Palette = ((238, 200, 172), (222, 178, 144), (190, 140, 104), (142, 98, 70), (94, 64, 48))
HAIR: Palette = (
    (28, 24, 24), (28, 24, 24), (74, 50, 34), (128, 86, 48), (190, 156, 96), (158, 154, 150),
)  # fmt: skip
SHOES: Palette = ((30, 30, 32), (90, 62, 44), (214, 212, 208), (160, 60, 56), (78, 92, 126))

PATTERNS = ("plain", "plain", "plain", "hoops", "stripes", "checks", "yoke", "print")
LEGWEAR = ("trousers", "trousers", "trousers", "shorts", "skirt")
BAGS = ("none", "none", "backpack", "backpack", "shoulder bag", "handbag")
HAIRSTYLES = ("short", "short", "long", "bun", "bald", "cap")


@dataclass(frozen=True)
class Person:
    """What stays the same in every image of one identity."""

    upper: Colour
    accent: Colour
    lower: Colour
    shoes: Colour
    skin: Colour
    hair: Colour
    bag_colour: Colour
    pattern: str
    legwear: str
    long_sleeves: bool
    coat: bool
    bag: str
    bag_on_left: bool
    hairstyle: str
    stature: float
    girth: float


def make_people(count: int, rng: np.random.Generator, look_alike: float = 0.25) -> list[Person]:
    """Invent ``count`` people, a share ``look_alike`` of whom wear the clothes of somebody before them."""
    people: list[Person] = []
    for _ in range(count):
        person = _make_person(rng)
        if people and rng.random() < look_alike:
            twin = people[int(rng.integers(len(people)))]
            person = replace(
                person,
                upper=_near(twin.upper, rng),
                lower=_near(twin.lower, rng),
                coat=twin.coat,
                legwear=twin.legwear,
            )
        people.append(person)
    return people


def _make_person(rng: np.random.Generator) -> Person:
    def pick(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    def colour(palette: Palette) -> Colour:
        return _near(palette[int(rng.integers(len(palette)))], rng)

    return Person(
        upper=colour(CLOTH),
        accent=colour(CLOTH),
        lower=colour(TROUSERS),
        shoes=colour(SHOES),
        skin=colour(SKIN),
        hair=colour(HAIR),
        bag_colour=colour(CLOTH),
        pattern=pick(PATTERNS),
        legwear=pick(LEGWEAR),
        long_sleeves=bool(rng.random() < 0.6),
        coat=bool(rng.random() < 0.2),
        bag=pick(BAGS),
        bag_on_left=bool(rng.random() < 0.5),
        hairstyle=pick(HAIRSTYLES),
        stature=float(rng.uniform(0.9, 1.05)),
        girth=float(rng.uniform(0.85, 1.3)),
    )


def _near(colour: Colour, rng: np.random.Generator) -> Colour:
    r, g, b = np.clip(np.array(colour) + rng.integers(-12, 13, 3), 0, 255).tolist()
    return r, g, b


def shade(colour: Colour, factor: float) -> Colour:
    """``colour`` darker (``factor`` below 1) or brighter."""
    r, g, b = (min(255, int(value * factor)) for value in colour)
    return r, g, b
