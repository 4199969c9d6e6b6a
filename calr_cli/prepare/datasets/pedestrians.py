"""How a person is drawn: a pose, and the figure on a transparent ground."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from calr_cli.prepare.datasets.people import Colour, Person, shade

Side = Literal["front", "back", "left", "right"]
Point = tuple[float, float]

SIDES: tuple[Side, ...] = ("front", "back", "left", "right")
SUPERSAMPLING = 3  # drawn this much larger, then reduced: Pillow's shapes have hard edges


@dataclass(frozen=True)
class Pose:
    """What differs between the images of one person.

    Attributes:
        side: Which side of the person the camera sees; ``left`` and ``right`` walk that way.
        phase: Where in the walking cycle, in radians.
        stride: Largest angle of a leg from the vertical, in radians.
        x: Middle of the body in pixels.
        y: Soles in pixels.
        height: Height of a person of stature 1 in pixels.
    """

    side: Side
    phase: float
    stride: float
    x: float
    y: float
    height: float


def draw_person(person: Person, pose: Pose, size: tuple[int, int]) -> Image.Image:
    """Draw ``person`` in ``pose`` on a transparent RGBA picture of ``size`` (width, height) pixels."""
    canvas = Image.new("RGBA", (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING))
    figure = _Figure(canvas, person, pose)
    if pose.side in ("left", "right"):
        figure.draw_profile()
    else:
        figure.draw_facing()
    return canvas.resize(size, Image.Resampling.BOX)


class _Figure:
    """One drawing. Body coordinates: x from the middle, y from crown (0) to soles (1), body heights."""

    def __init__(self, canvas: Image.Image, person: Person, pose: Pose) -> None:
        self.canvas, self.person, self.pose = canvas, person, pose
        self.pen = ImageDraw.Draw(canvas)
        self.scale = pose.height * person.stature * SUPERSAMPLING
        self.left = pose.x * SUPERSAMPLING
        self.top = pose.y * SUPERSAMPLING - self.scale
        self.hem = 0.68 if person.coat else 0.52

    def draw_profile(self) -> None:
        person, pose = self.person, self.pose
        ahead = 1.0 if pose.side == "right" else -1.0
        swing = pose.stride * sin(pose.phase)
        # Somebody walking to the right shows the right-hand side; the other side's bag is hidden.
        bag_is_near = person.bag_on_left == (pose.side == "left")
        self.arm((0, 0.2), swing * ahead, ahead, 0.75)
        if not bag_is_near:
            self.side_bag(0.02 * ahead, swing * ahead)
        self.leg((0, 0.5), -swing * ahead, -ahead, 0.8)
        self.leg((0, 0.5), swing * ahead, -ahead, 1.0)
        waist = 0.075 * person.girth
        self.skirt(waist)
        if person.bag == "backpack":
            self.ellipse((-(waist + 0.035) * ahead, 0.3), 0.06, 0.105, person.bag_colour)
        self.torso([(waist * 0.85, 0.165), (waist, 0.3), (waist, self.hem)])
        if person.bag == "backpack":
            self.line([(0.2 * waist * ahead, 0.17), (-0.4 * waist * ahead, 0.33)], 0.02, person.bag_colour)
        if bag_is_near:
            self.side_bag(0.0, -swing * ahead)
        self.arm((0, 0.2), -swing * ahead, ahead, 1.0)
        self.head(ahead)

    def draw_facing(self) -> None:
        person, pose = self.person, self.pose
        step, front = sin(pose.phase), pose.side == "front"
        shoulder, hip = 0.112 * person.girth, 0.085 * person.girth
        # A person's left is on the picture's right when facing us.
        bag_side = 1.0 if person.bag_on_left == front else -1.0
        for side in (-1.0, 1.0):
            lift = 0.5 * pose.stride * max(0.0, side * step)
            self.leg((side * 0.55 * hip, 0.5), side * 0.05, 0.0, 1.0 - 0.3 * lift, 1 - 0.3 * lift)
        self.skirt(hip)
        for side in (-1.0, 1.0):
            self.arm((side * shoulder * 0.88, 0.2), side * (0.14 + 0.1 * step * side), 0.0, 0.9)
        self.torso([(shoulder, 0.165), (hip, 0.36), (hip * 1.05, self.hem)], front)
        if person.bag == "backpack" and front:
            for side in (-0.6, 0.6):
                self.line([(side * shoulder, 0.165), (side * shoulder, 0.33)], 0.024, person.bag_colour)
        elif person.bag == "backpack":
            self.ellipse((0, 0.3), 0.085, 0.12, person.bag_colour)
            self.ellipse((0, 0.345), 0.06, 0.045, shade(person.bag_colour, 0.7))
        elif person.bag == "shoulder bag":
            self.line([(-bag_side * 0.6 * shoulder, 0.17), (bag_side * hip, 0.46)], 0.018, person.bag_colour)
        self.side_bag(bag_side * (hip + 0.03), 0.14 * bag_side)
        self.head(0.0)

    def side_bag(self, x: float, arm_angle: float) -> None:
        if self.person.bag == "shoulder bag":
            self.box(x - 0.055, 0.42, x + 0.055, 0.53, self.person.bag_colour)
        elif self.person.bag == "handbag":
            x += 0.28 * sin(arm_angle)
            self.box(x - 0.06, 0.52, x + 0.06, 0.63, self.person.bag_colour)

    def leg(self, hip: Point, angle: float, bend_to: float, light: float, length: float = 1.0) -> None:
        person = self.person
        trousers = person.legwear == "trousers"
        # The far leg, which is drawn darker, is half a cycle behind.
        bend = 0.5 * self.pose.stride * (1 + cos(self.pose.phase + pi * (light < 1.0))) * bend_to
        knee = (hip[0] + 0.23 * sin(angle), hip[1] + 0.23 * length * cos(angle))
        ankle = (knee[0] + 0.225 * sin(angle + bend), knee[1] + 0.225 * length * cos(angle + bend))
        calf = person.lower if trousers else person.skin
        self.line([knee, ankle], 0.075 * person.girth if trousers else 0.048, shade(calf, light))
        self.line([hip, knee], 0.085 * person.girth, shade(person.lower, light))
        toe = ankle[0] - 0.045 * bend_to
        self.line([(ankle[0], ankle[1] + 0.025), (toe, ankle[1] + 0.028)], 0.042, shade(person.shoes, light))

    def arm(self, shoulder: Point, angle: float, ahead: float, light: float) -> None:
        person = self.person
        elbow = (shoulder[0] + 0.15 * sin(angle), shoulder[1] + 0.15 * cos(angle))
        lower_angle = angle + 0.35 * ahead
        hand = (elbow[0] + 0.14 * sin(lower_angle), elbow[1] + 0.14 * cos(lower_angle))
        sleeve = shade(person.upper, 0.88 * light)
        self.ellipse(hand, 0.022, 0.026, shade(person.skin, light))
        self.line([elbow, hand], 0.042, sleeve if person.long_sleeves else shade(person.skin, light))
        self.line([shoulder, elbow], 0.055, sleeve)

    def skirt(self, hip: float) -> None:
        if self.person.legwear == "skirt":
            self.polygon(
                [(-hip, 0.46), (hip, 0.46), (hip * 1.45, 0.7), (-hip * 1.45, 0.7)], self.person.lower
            )

    def torso(self, outline: list[Point], front: bool = False) -> None:
        """Fill the trunk: ``outline`` gives its right-hand shoulder, waist and hem."""
        (shoulder, top), *sides = outline
        half = [(0.72 * shoulder, top), (shoulder, top + 0.03), *sides]
        shape = [*half, *((-x, y) for x, y in reversed(half))]
        mask = Image.new("L", self.canvas.size)
        ImageDraw.Draw(mask).polygon([self.at(point) for point in shape], fill=255)
        fabric = self.canvas.copy()
        self.pen = ImageDraw.Draw(fabric)
        self.box(-0.3, 0.1, 0.3, 0.7, self.person.upper)
        self.weave(front)
        self.pen = ImageDraw.Draw(self.canvas)
        self.canvas.paste(fabric, mask=mask)

    def weave(self, front: bool) -> None:
        pattern, accent = self.person.pattern, self.person.accent
        if pattern in ("hoops", "checks"):
            for y in np.arange(0.17, 0.7, 0.055).tolist():
                self.box(-0.3, y, 0.3, y + 0.024, accent)
        if pattern in ("stripes", "checks"):
            for x in np.arange(-0.2, 0.2, 0.05).tolist():
                self.box(x, 0.1, x + 0.018, 0.7, accent)
        if pattern == "yoke":
            self.box(-0.3, 0.1, 0.3, 0.27, accent)
        if pattern == "print" and front:
            self.box(-0.05, 0.22, 0.05, 0.32, accent)
        if self.person.coat and front:
            self.box(-0.02, 0.1, 0.02, 0.7, accent)

    def head(self, ahead: float) -> None:
        person, back = self.person, self.pose.side == "back"
        style, hair = person.hairstyle, person.hair
        self.line([(0, 0.12), (0, 0.165)], 0.05, shade(person.skin, 0.85))
        if style == "long":
            self.ellipse((-0.02 * ahead, 0.1), 0.056, 0.1, hair)
        self.ellipse((0, 0.08), 0.046, 0.065, hair if back and style != "bald" else person.skin)
        if style == "bun":
            self.ellipse((-0.045 * ahead, 0.03 if ahead == 0 else 0.06), 0.026, 0.028, hair)
        if style == "cap":
            self.arc((0, 0.06), 0.052, person.accent)
            self.line([(0, 0.055), ((0.075 * ahead) or 0.03, 0.057)], 0.014, shade(person.accent, 0.8))
        elif style != "bald":
            self.arc((-0.008 * ahead, 0.058), 0.05, hair)
            if ahead:
                self.ellipse((-0.028 * ahead, 0.075), 0.026, 0.045, hair)

    def at(self, point: Point) -> Point:
        return self.left + point[0] * self.scale, self.top + point[1] * self.scale

    def line(self, points: list[Point], width: float, colour: Colour) -> None:
        self.pen.line([self.at(point) for point in points], colour, round(width * self.scale))
        for point in points:
            self.ellipse(point, width / 2, width / 2, colour)

    def ellipse(self, centre: Point, rx: float, ry: float, colour: Colour) -> None:
        x, y = centre
        self.pen.ellipse([self.at((x - rx, y - ry)), self.at((x + rx, y + ry))], colour)

    def arc(self, centre: Point, radius: float, colour: Colour) -> None:
        """The upper half of a disc."""
        x, y = centre
        box = [self.at((x - radius, y - 1.1 * radius)), self.at((x + radius, y + 1.1 * radius))]
        self.pen.pieslice(box, 180, 360, colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self.pen.rectangle([self.at((left, top)), self.at((right, bottom))], colour)

    def polygon(self, points: list[Point], colour: Colour) -> None:
        self.pen.polygon([self.at(point) for point in points], colour)
