"""Signed distances of plain shapes: negative inside, positive outside, in the units of the coordinates given.

Every function takes the coordinate arrays `u` and `v` (any equal shape) and returns one array of that shape. The
distances of the ellipse, the tapered segment and the fan are close approximations near the edge, which is where they
are used.
"""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Point = tuple[float, float]
Window = tuple[slice, slice]


def window(centre: Point, reach: float, size: int) -> Window:
    """The rows and columns of a size x size image that lie within `reach` pixels of a point, one pixel to spare."""

    def side(middle: float) -> slice:
        low = min(max(int(middle - reach) - 1, 0), size - 2)
        return slice(low, max(min(int(middle + reach) + 3, size), low + 2))

    return side(centre[1]), side(centre[0])


def pixel_grid(rows: slice, columns: slice) -> tuple[Array, Array]:
    """x and y of every pixel of a window, each (H, W); the centre of the image's first pixel is (0, 0)."""
    x, y = np.meshgrid(
        np.arange(columns.start, columns.stop, dtype=np.float64), np.arange(rows.start, rows.stop, dtype=np.float64)
    )
    return x, y


def rotated(u: Array, v: Array, angle: float, about: Point = (0.0, 0.0)) -> tuple[Array, Array]:
    """The coordinates seen from a frame turned by `angle` (radians) about a point, which keeps its coordinates."""
    du, dv = u - about[0], v - about[1]
    cosine, sine = math.cos(angle), math.sin(angle)
    return about[0] + cosine * du + sine * dv, about[1] - sine * du + cosine * dv


def disc(u: Array, v: Array, centre: Point, radius: float) -> Array:
    """Distance to a disc."""
    return np.hypot(u - centre[0], v - centre[1]) - radius


def ellipse(u: Array, v: Array, centre: Point, radii: Point) -> Array:
    """Distance to an ellipse whose axes lie along u and v."""
    du, dv = u - centre[0], v - centre[1]
    level = np.hypot(du / radii[0], dv / radii[1])
    slope = np.hypot(du / radii[0] ** 2, dv / radii[1] ** 2)
    return level * (level - 1.0) / np.maximum(slope, 1e-9)


def segment(u: Array, v: Array, start: Point, end: Point, radius: float, end_radius: float | None = None) -> Array:
    """Distance to a thick line with round ends, tapering from `radius` to `end_radius`."""
    du, dv = end[0] - start[0], end[1] - start[1]
    along = np.clip(((u - start[0]) * du + (v - start[1]) * dv) / (du * du + dv * dv), 0.0, 1.0)
    thickness = radius if end_radius is None else radius + (end_radius - radius) * along
    return np.hypot(u - start[0] - along * du, v - start[1] - along * dv) - thickness


def lens(u: Array, v: Array, centre: Point, half_length: float, half_width: float) -> Array:
    """Distance to a leaf shape, pointed at both ends, its length along u."""
    radius = (half_length**2 + half_width**2) / (2.0 * half_width)
    return np.hypot(u - centre[0], np.abs(v - centre[1]) + radius - half_width) - radius


def fan(u: Array, v: Array, tip: Point, radius: float, half_angle: float) -> Array:
    """Distance to a sector of a disc that opens towards negative u."""
    du, dv = tip[0] - u, np.abs(v - tip[1])
    side = dv * math.cos(half_angle) - du * math.sin(half_angle)
    return np.maximum(np.hypot(du, dv) - radius, side)


def arc(u: Array, v: Array, centre: Point, radius: float, gap: float, thickness: float, end_thickness: float) -> Array:
    """Distance to a ring with a gap of half angle `gap` (radians) towards negative u, tapering towards the gap."""
    du, dv = u - centre[0], np.abs(v - centre[1])
    angle = np.arctan2(dv, du)
    nearest = np.minimum(angle, math.pi - gap)
    width = thickness + (end_thickness - thickness) * nearest / (math.pi - gap)
    return np.hypot(du - radius * np.cos(nearest), dv - radius * np.sin(nearest)) - width


def polygon(u: Array, v: Array, corners: list[Point]) -> Array:
    """Distance to a simple polygon."""
    squared = np.full_like(u, np.inf)
    inside = np.zeros(u.shape, dtype=bool)
    for (au, av), (bu, bv) in zip(corners, corners[1:] + corners[:1], strict=True):
        du, dv = bu - au, bv - av
        pu, pv = u - au, v - av
        along = np.clip((pu * du + pv * dv) / (du * du + dv * dv), 0.0, 1.0)
        squared = np.minimum(squared, (pu - along * du) ** 2 + (pv - along * dv) ** 2)
        crosses = (v >= min(av, bv)) & (v < max(av, bv)) & ((pu * dv - pv * du) * (1.0 if dv > 0 else -1.0) < 0.0)
        inside ^= crosses
    return np.where(inside, -1.0, 1.0) * np.sqrt(squared)
