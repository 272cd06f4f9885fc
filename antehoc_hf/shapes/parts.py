"""The bug: its parts, their variants, the classes they decide, and how each part is drawn.

Bug coordinates: u points from tail to head, v to the left side, the body is about two units long. A part is drawn
from a signed distance in pixels, so its edge is smooth and ends less than half a pixel outside its true outline.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from antehoc_hf.shapes import geometry
from antehoc_hf.shapes.geometry import Array, Point, Window
from antehoc_hf.shapes.textures import Colour, Rng, colour

HORNS = ("lance", "fork", "mace")
WINGS = ("moth", "fly", "hawk")
TAILS = ("fan", "pincers", "sting")

CLASSES: dict[str, tuple[int, int, int]] = {
    "lancefly": (0, 1, 1),
    "stagmoth": (1, 0, 1),
    "lancehawk": (0, 2, 2),
    "macemoth": (2, 0, 2),
    "staghawk": (1, 2, 0),
    "macefly": (2, 1, 0),
}
"""Class name -> the variants of horn, wings and tail. Tail = (horn + wings) mod 3, so any two parts give the third."""

DECIDING: tuple[str, ...] = ("horn", "wings", "tail")
PARTS: tuple[str, ...] = (*DECIDING, "body", "head", "legs")
LANDMARKS: tuple[str, ...] = ("horn", "left_wing", "right_wing", "tail", "body", "head")
LANDMARK_PARTS: tuple[str, ...] = ("horn", "wings", "wings", "tail", "body", "head")


@dataclass(frozen=True)
class Bug:
    """One bug: where it is (in shares of the image side), how it is turned and everything its look depends on."""

    variants: tuple[int, int, int]
    centre: Point
    unit: float
    angle: float
    light: float
    plump: float
    horn_size: float
    horn_tilt: float
    wing_size: float
    wing_sweep: float
    tail_size: float
    tail_tilt: float
    gait: float
    pattern: int
    colours: dict[str, Colour]


def sample_bug(rng: Rng, label: int) -> Bug:
    """A bug of a class; everything but the three variants is drawn independently of the class."""
    unit = rng.uniform(0.185, 0.255)
    reach = 1.8 * unit  # the tips of horn and tail stay in the image
    centre = (rng.uniform(reach, 1.0 - reach), rng.uniform(reach, 1.0 - reach))
    body = rng.random()
    paints = {
        "body": colour(body, rng.uniform(0.65, 0.95), rng.uniform(0.75, 1.0)),
        "wings": colour(rng.random(), rng.uniform(0.5, 0.9), rng.uniform(0.88, 1.0)),
        "ends": colour(rng.random(), rng.uniform(0.3, 0.85), rng.uniform(0.92, 1.0)),
        "head": colour(body + rng.uniform(-0.06, 0.06), 0.7, rng.uniform(0.45, 0.7)),
        "legs": colour(body, 0.4, rng.uniform(0.08, 0.2)),
        "marks": colour(rng.random(), 0.6, rng.choice([0.12, 1.0])),
    }
    return Bug(
        variants=list(CLASSES.values())[label],
        centre=centre,
        unit=unit,
        angle=rng.uniform(0.0, 2.0 * math.pi),
        light=rng.uniform(0.0, 2.0 * math.pi),
        plump=rng.uniform(0.85, 1.15),
        horn_size=rng.uniform(0.9, 1.1),
        horn_tilt=rng.uniform(-0.2, 0.2),
        wing_size=rng.uniform(0.88, 1.08),
        wing_sweep=rng.uniform(-0.18, 0.18),
        tail_size=rng.uniform(0.9, 1.1),
        tail_tilt=rng.uniform(-0.25, 0.25),
        gait=rng.uniform(-0.15, 0.15),
        pattern=int(rng.integers(4)),
        colours=paints,
    )


@dataclass(frozen=True)
class PaintLayer:
    """One thing drawn: its region, the window of the image it fills, its coverage (H, W) and colours (H, W, 3)."""

    region: str
    window: Window
    alpha: Array
    rgb: Array


class BugPainter:
    """Draws one bug on a square image of `size` pixels a side."""

    def __init__(self, bug: Bug, size: int) -> None:
        self.bug = bug
        self.size = size
        self.unit = bug.unit * size

    def layers(self) -> list[PaintLayer]:
        """The parts from the lowest to the highest."""
        return [self._legs(), self._tail(), self._wings(), self._horn(), self._body(), self._head()]

    def anchors(self) -> dict[str, Point]:
        """The nominal place of every landmark in pixels, x to the right and y down."""
        bug = self.bug
        horn, wings, tail = bug.variants
        wing = _turned(_WING_CENTRES[wings], _WING_ROOT, bug.wing_sweep, bug.wing_size)
        places = {
            "horn": _turned(_HORN_CENTRES[horn], _HORN_ROOT, bug.horn_tilt, bug.horn_size),
            "left_wing": wing,
            "right_wing": (wing[0], -wing[1]),
            "tail": _turned(_TAIL_CENTRES[tail], _TAIL_ROOT, bug.tail_tilt, bug.tail_size),
            "body": (-0.1, 0.0),
            "head": (0.84, 0.0),
        }
        return {name: self._pixel(place) for name, place in places.items()}

    def _pixel(self, place: Point) -> Point:
        """Bug coordinates to pixels. The image's y points down, hence the signs of v."""
        cosine, sine = math.cos(self.bug.angle), math.sin(self.bug.angle)
        x = self.bug.centre[0] * self.size - 0.5 + self.unit * (cosine * place[0] + sine * place[1])
        y = self.bug.centre[1] * self.size - 0.5 + self.unit * (sine * place[0] - cosine * place[1])
        return x, y

    def _frame(self, middle: Point, reach: float) -> tuple[Window, Array, Array]:
        """The window that holds all within `reach` units of a point, and the bug coordinates of its pixels."""
        window = geometry.window(self._pixel(middle), reach * self.unit, self.size)
        x, y = geometry.pixel_grid(*window)
        centre = self._pixel((0.0, 0.0))
        du, dv = (x - centre[0]) / self.unit, (y - centre[1]) / self.unit
        cosine, sine = math.cos(self.bug.angle), math.sin(self.bug.angle)
        return window, cosine * du + sine * dv, sine * du - cosine * dv

    def _layer(self, region: str, window: Window, distance: Array, paint: Colour | Array, rim: float) -> PaintLayer:
        """A rounded, outlined surface: `distance` in units, `rim` the width of its rounded edge in units."""
        alpha = np.clip(0.5 - distance * self.unit / 0.8, 0.0, 1.0)
        depth = np.clip(-distance / rim, 0.0, 1.0)
        slope_v, slope_u = np.gradient(distance * self.unit)
        towards = math.cos(self.bug.light) * slope_u + math.sin(self.bug.light) * slope_v
        shade = (0.62 + 0.38 * np.minimum(1.0, 2.5 * depth)) * (1.0 + 0.4 * (1.0 - depth) * towards)
        rgb = np.clip(np.asarray(paint) * shade[..., None] + (0.1 * depth**2)[..., None], 0.0, 1.0)
        return PaintLayer(region, window, alpha, rgb)

    def _legs(self) -> PaintLayer:
        window, u, v = self._frame((0.0, 0.0), 1.45)
        u, v = u + self.bug.gait * np.sign(v), np.abs(v)
        distance = np.full(u.shape, np.inf)
        for hip, knee, foot in _LEGS:
            thigh = geometry.segment(u, v, hip, knee, 0.06, 0.05)
            shin = geometry.segment(u, v, knee, foot, 0.05, 0.025)
            distance = np.minimum(distance, np.minimum(thigh, shin))
        return self._layer("legs", window, distance, self.bug.colours["legs"], 0.06)

    def _body(self) -> PaintLayer:
        bug = self.bug
        window, u, v = self._frame((0.0, 0.0), 0.9)
        abdomen = geometry.ellipse(u, v, (-0.17, 0.0), (0.62, 0.41 * bug.plump))
        thorax = geometry.ellipse(u, v, (0.5, 0.0), (0.26, 0.31 * bug.plump))
        marks = self._marks(u, np.abs(v))[..., None]
        paint = np.asarray(bug.colours["body"]) * (1.0 - marks) + np.asarray(bug.colours["marks"]) * marks
        seam = np.clip(1.0 - np.abs(v) * self.unit / 0.6, 0.0, 1.0) * (u < 0.35)
        waist = np.clip(1.0 - np.abs(abdomen - thorax) * self.unit / 1.2, 0.0, 1.0)
        paint = paint * (1.0 - 0.5 * np.maximum(seam, waist))[..., None]
        return self._layer("body", window, np.minimum(abdomen, thorax), paint, 0.3)

    def _marks(self, u: Array, v: Array) -> Array:
        """How much of the wing cases' second colour covers each pixel: none, spots, bands or a saddle."""
        pattern = self.bug.pattern
        if pattern == 0:
            return np.zeros_like(u)
        if pattern == 1:
            spots = [geometry.disc(u, v, place, 0.085) for place in ((0.12, 0.18), (-0.2, 0.22), (-0.5, 0.14))]
            distance = np.minimum(np.minimum(spots[0], spots[1]), spots[2])
        elif pattern == 2:
            distance = np.abs((u * 3.0) % 1.0 - 0.5) / 3.0 - 0.08 + np.where(u > 0.35, 1.0, 0.0)
        else:
            distance = geometry.ellipse(u, v, (-0.2, 0.0), (0.3, 0.2))
        return np.clip(0.5 - distance * self.unit, 0.0, 1.0)

    def _head(self) -> PaintLayer:
        window, u, v = self._frame((0.86, 0.0), 0.3)
        distance = geometry.ellipse(u, v, (0.86, 0.0), (0.21, 0.24))
        eyes = geometry.disc(u, np.abs(v), (0.93, 0.16), 0.075)
        eye = np.clip(0.5 - eyes * self.unit, 0.0, 1.0)[..., None]
        paint = np.asarray(self.bug.colours["head"]) * (1.0 - eye) + np.array([0.03, 0.03, 0.05]) * eye
        return self._layer("head", window, distance, paint, 0.2)

    def _horn(self) -> PaintLayer:
        bug = self.bug
        window, u, v = self._frame((1.35, 0.0), 0.75)
        u, v = _untilted(u, v, _HORN_ROOT, bug.horn_tilt, bug.horn_size)
        distance = _HORN_SHAPES[bug.variants[0]](u, v) * bug.horn_size
        return self._layer("horn", window, distance, bug.colours["ends"], 0.12)

    def _tail(self) -> PaintLayer:
        bug = self.bug
        window, u, v = self._frame((-1.2, 0.0), 0.95)
        u, v = _untilted(u, v, _TAIL_ROOT, bug.tail_tilt, bug.tail_size)
        distance = _TAIL_SHAPES[bug.variants[2]](u, v) * bug.tail_size
        paint: Colour | Array = bug.colours["ends"]
        if TAILS[bug.variants[2]] == "fan":
            rays = 0.84 + 0.16 * np.cos(22.0 * np.arctan2(v, 0.6 - u))
            paint = np.asarray(paint) * rays[..., None]
        return self._layer("tail", window, distance, paint, 0.14)

    def _wings(self) -> PaintLayer:
        bug = self.bug
        window, u, v = self._frame((0.1, 0.0), 2.0)
        u, v = _untilted(u, np.abs(v), _WING_ROOT, bug.wing_sweep, bug.wing_size)
        distance = _WING_SHAPES[bug.variants[1]](u, v) * bug.wing_size
        veins = 0.87 + 0.13 * np.cos(15.0 * np.arctan2(u - _WING_ROOT[0], v - _WING_ROOT[1] + 0.25))
        return self._layer("wings", window, distance, np.asarray(bug.colours["wings"]) * veins[..., None], 0.16)


_HORN_ROOT: Point = (1.0, 0.0)
_TAIL_ROOT: Point = (-0.75, 0.0)
_WING_ROOT: Point = (0.3, 0.2)
_LEGS: tuple[tuple[Point, Point, Point], ...] = (  # hip, knee and foot of the left side
    ((0.5, 0.2), (0.72, 0.58), (1.05, 0.78)),
    ((0.1, 0.3), (-0.05, 0.8), (-0.3, 1.12)),
    ((-0.4, 0.3), (-0.72, 0.6), (-1.08, 0.72)),
)


def _turned(place: Point, root: Point, angle: float, scale: float) -> Point:
    du, dv = scale * (place[0] - root[0]), scale * (place[1] - root[1])
    cosine, sine = math.cos(angle), math.sin(angle)
    return root[0] + cosine * du - sine * dv, root[1] + sine * du + cosine * dv


def _untilted(u: Array, v: Array, root: Point, angle: float, scale: float) -> tuple[Array, Array]:
    """The inverse of `_turned`: the coordinates in which a part tilted and scaled about its root is drawn plainly."""
    u, v = geometry.rotated(u, v, angle, about=root)
    return root[0] + (u - root[0]) / scale, root[1] + (v - root[1]) / scale


def _lance(u: Array, v: Array) -> Array:
    return geometry.segment(u, v, (0.95, 0.0), (1.8, 0.0), 0.15, 0.03)


def _fork(u: Array, v: Array) -> Array:
    stem = geometry.segment(u, v, (0.95, 0.0), (1.25, 0.0), 0.09)
    prong = geometry.segment(u, np.abs(v), (1.25, 0.0), (1.65, 0.42), 0.09, 0.06)
    return np.minimum(stem, prong)


def _mace(u: Array, v: Array) -> Array:
    stem = geometry.segment(u, v, (0.95, 0.0), (1.45, 0.0), 0.07)
    return np.minimum(stem, geometry.disc(u, v, (1.53, 0.0), 0.23))


def _moth(u: Array, v: Array) -> Array:
    fore = geometry.ellipse(u, v, (0.36, 0.8), (0.46, 0.52))
    hind = geometry.ellipse(u, v, (-0.3, 0.66), (0.36, 0.4))
    return np.minimum(fore, hind)


def _fly(u: Array, v: Array) -> Array:
    fore_u, fore_v = geometry.rotated(u, v, -0.22, about=(0.38, 0.2))
    hind_u, hind_v = geometry.rotated(u, v, 0.3, about=(0.1, 0.2))
    fore = geometry.ellipse(fore_u, fore_v, (0.38, 0.82), (0.165, 0.72))
    hind = geometry.ellipse(hind_u, hind_v, (0.1, 0.78), (0.165, 0.66))
    return np.minimum(fore, hind)


def _hawk(u: Array, v: Array) -> Array:
    corners = [(0.62, 0.1), (0.5, 0.62), (-0.75, 1.5), (-0.3, 0.55), (-0.35, 0.1)]
    return geometry.polygon(u, v, corners) - 0.04


def _fan(u: Array, v: Array) -> Array:
    return geometry.fan(u, v, (-0.55, 0.0), 1.1, 0.62) - 0.03


def _pincers(u: Array, v: Array) -> Array:
    stem = geometry.segment(u, v, (-0.7, 0.0), (-0.95, 0.0), 0.1)
    jaws = geometry.arc(u, v, (-1.27, 0.0), 0.36, 0.6, 0.1, 0.05)
    return np.minimum(stem, jaws)


def _sting(u: Array, v: Array) -> Array:
    beads = np.minimum(geometry.disc(u, v, (-0.87, 0.0), 0.17), geometry.disc(u, v, (-1.14, 0.0), 0.15))
    beads = np.minimum(beads, geometry.disc(u, v, (-1.39, 0.0), 0.13))
    return np.minimum(beads, geometry.segment(u, v, (-1.4, 0.0), (-1.8, 0.0), 0.07, 0.02))


_Shape = Callable[[Array, Array], Array]
_HORN_SHAPES: tuple[_Shape, ...] = (_lance, _fork, _mace)
_WING_SHAPES: tuple[_Shape, ...] = (_moth, _fly, _hawk)
_TAIL_SHAPES: tuple[_Shape, ...] = (_fan, _pincers, _sting)
_HORN_CENTRES: tuple[Point, ...] = ((1.35, 0.0), (1.27, 0.0), (1.53, 0.0))
_WING_CENTRES: tuple[Point, ...] = ((0.3, 0.85), (0.5, 0.85), (0.0, 0.75))
_TAIL_CENTRES: tuple[Point, ...] = ((-1.2, 0.0), (-0.92, 0.0), (-1.14, 0.0))
