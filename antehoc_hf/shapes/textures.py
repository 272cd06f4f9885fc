"""Textured backgrounds, drawn from a random generator: grass, sand, wood, stone, water and fallen leaves.

Every texture is a function of the place in the image (0 to 1 along each side), so that one scene looks the same at
every image size, only finer.
"""

import colorsys
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from antehoc_hf.shapes.geometry import Array, pixel_grid, rotated

Rng = np.random.Generator
Colour = tuple[float, float, float]


def colour(hue: float, saturation: float, value: float) -> Colour:
    """An RGB colour in [0, 1] from hue (a full turn is 1), saturation and value."""
    return colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))


def background(family: str, rng: Rng, size: int) -> Array:
    """One background, (size, size, 3) in [0, 1], of a family of BACKGROUNDS, lit unevenly from one side."""
    x, y = pixel_grid(slice(0, size), slice(0, size))
    x, y = (x + 0.5) / size, (y + 0.5) / size
    # Turning by any angle about the middle keeps the texture from telling which way is up.
    u, v = rotated(x, y, rng.uniform(0.0, 2.0 * math.pi), about=(0.5, 0.5))
    image = _PAINTERS[family](rng, u, v)
    towards = rng.uniform(0.0, 2.0 * math.pi)
    light = 1.0 + 0.28 * (math.cos(towards) * (x - 0.5) + math.sin(towards) * (y - 0.5))
    return np.clip(image * light[..., None], 0.0, 1.0)


def noise(rng: Rng, u: Array, v: Array, cells_u: float, cells_v: float) -> Array:
    """Smooth random values in [0, 1]: a periodic lattice of about `cells` values per unit length, interpolated."""
    lattice = rng.random((64, 64))
    gu, gv = u * cells_u, v * cells_v
    fu, fv = np.floor(gu), np.floor(gv)
    iu, iv = fu.astype(np.int64) & 63, fv.astype(np.int64) & 63
    ju, jv = (iu + 1) & 63, (iv + 1) & 63
    tu, tv = gu - fu, gv - fv
    tu, tv = tu * tu * (3.0 - 2.0 * tu), tv * tv * (3.0 - 2.0 * tv)
    low, high = lattice[iv, iu], lattice[jv, iu]
    low = low + tu * (lattice[iv, ju] - low)
    high = high + tu * (lattice[jv, ju] - high)
    return low + tv * (high - low)


def fractal(rng: Rng, u: Array, v: Array, cells: float, octaves: int) -> Array:
    """Noise of several octaves, each twice as fine and half as strong; in [0, 1]."""
    total, weight = np.zeros_like(u), 0.0
    for octave in range(octaves):
        strength = 0.5**octave
        total += strength * noise(rng, u, v, cells * 2**octave, cells * 2**octave)
        weight += strength
    return total / weight


def ramp(level: Array, colours: list[Colour]) -> Array:
    """Levels in [0, 1] turned into colours along evenly spaced stops, (..., 3)."""
    stops = np.linspace(0.0, 1.0, len(colours))
    return np.stack([np.interp(level, stops, [c[k] for c in colours]) for k in range(3)], axis=-1)


def cells(rng: Rng, u: Array, v: Array, per_side: int) -> tuple[NDArray[np.int64], Array, Array]:
    """Cells around scattered points: the number of each pixel's cell, its distance to the centre and to the edge.

    Points lie one to a square of a jittered grid that covers the unit square turned by any angle.
    """
    low, span = -0.25, 1.5
    ticks = low + span * (np.arange(per_side) + 0.5) / per_side
    jitter = rng.uniform(-0.45, 0.45, (2, per_side, per_side)) * span / per_side
    pu = (ticks[None, :] + jitter[0]).ravel()
    pv = (ticks[:, None] + jitter[1]).ravel()
    place_u = np.clip(((u - low) / span * per_side).astype(np.int64), 1, per_side - 2)
    place_v = np.clip(((v - low) / span * per_side).astype(np.int64), 1, per_side - 2)
    near, second = np.full(u.shape, np.inf), np.full(u.shape, np.inf)
    owner: NDArray[np.int64] = np.zeros(u.shape, dtype=np.int64)
    for row in (-1, 0, 1):
        for column in (-1, 0, 1):
            point = (place_v + row) * per_side + place_u + column
            distance = np.hypot(u - pu[point], v - pv[point])
            closer = distance < near
            second = np.where(closer, near, np.minimum(second, distance))
            owner = np.where(closer, point, owner)
            near = np.where(closer, distance, near)
    scale = per_side / span
    return owner, near * scale, (second - near) * scale


def _grass(rng: Rng, u: Array, v: Array) -> Array:
    sway = fractal(rng, u, v, 2.5, 2)
    level = 0.45 * sway
    for lean in (0.0, 0.5, -0.45):
        along, across = rotated(u, v, lean + rng.uniform(-0.15, 0.15))
        blades = noise(rng, along, across + 0.12 * sway, 5.0, 34.0)
        level = np.maximum(level, blades**1.6 * rng.uniform(0.75, 1.0))
    hue = rng.uniform(0.23, 0.34)
    shades = [colour(hue + 0.04, 0.75, 0.13), colour(hue, 0.66, 0.36), colour(hue - 0.05, 0.58, 0.64)]
    return ramp(level, shades)


def _sand(rng: Rng, u: Array, v: Array) -> Array:
    dunes = fractal(rng, u, v, 2.0, 3)
    ripples = 0.5 + 0.5 * np.sin(2.0 * math.pi * (rng.uniform(6.0, 9.0) * u + 2.2 * dunes))
    grain = noise(rng, u, v, 61.0, 61.0)
    level = 0.34 * ripples + 0.4 * dunes + 0.3 * grain
    hue = rng.uniform(0.085, 0.125)
    return ramp(level, [colour(hue - 0.02, 0.45, 0.4), colour(hue, 0.42, 0.64), colour(hue, 0.3, 0.84)])


def _wood(rng: Rng, u: Array, v: Array) -> Array:
    bend = fractal(rng, u * 0.5, v, 2.5, 2)
    rings = (v * rng.uniform(5.0, 9.0) + 2.4 * bend) % 1.0
    fibres = noise(rng, u, v + 0.03 * bend, 4.0, 55.0)
    level = 0.2 + 0.42 * rings**0.7 + 0.34 * fibres
    plank = v * 2.6 + rng.random()
    seam = np.abs(plank - np.round(plank)) / 2.6
    level = (level + 0.1 * np.sin(np.round(plank) * 2.4)) * np.clip(seam * 60.0, 0.3, 1.0)
    hue = rng.uniform(0.05, 0.085)
    return ramp(level, [colour(hue, 0.65, 0.14), colour(hue, 0.6, 0.42), colour(hue + 0.02, 0.48, 0.68)])


def _stone(rng: Rng, u: Array, v: Array) -> Array:
    warp = 0.05 * (fractal(rng, u, v, 5.0, 2) - 0.5)
    owner, centre, edge = cells(rng, u + warp, v - warp, int(rng.integers(7, 11)))
    tone = rng.random(2048)[owner]
    speckle = fractal(rng, u, v, 12.0, 3)
    level = (0.25 + 0.3 * tone + 0.45 * (speckle - 0.2)) * np.clip(edge * 5.0, 0.25, 1.0) - 0.12 * centre
    hue, tint = rng.uniform(0.0, 1.0), rng.uniform(0.02, 0.1)
    return ramp(level, [colour(hue, tint, 0.16), colour(hue, tint, 0.48), colour(hue, tint / 2, 0.8)])


def _water(rng: Rng, u: Array, v: Array) -> Array:
    swell = fractal(rng, u, v, 3.0, 2)
    first = noise(rng, u + 0.15 * swell, v, 6.5, 6.5)
    second = noise(rng, u, v - 0.2 * swell, 10.0, 10.0)
    glints = (1.0 - np.abs(2.0 * first - 1.0)) * (1.0 - np.abs(2.0 * second - 1.0))
    level = 0.3 * swell + 0.75 * np.clip(glints, 0.0, 1.0) ** 2.2
    hue = rng.uniform(0.47, 0.58)
    return ramp(level, [colour(hue + 0.04, 0.8, 0.24), colour(hue, 0.66, 0.5), colour(hue - 0.02, 0.26, 0.88)])


def _leaves(rng: Rng, u: Array, v: Array) -> Array:
    warp = 0.04 * (fractal(rng, u, v, 6.0, 2) - 0.5)
    owner, centre, edge = cells(rng, u + warp, v + warp, 9)
    hues, values = rng.uniform(0.0, 0.11, 128), rng.uniform(0.4, 0.74, 128)
    turns = rng.uniform(0.0, 2.0 * math.pi, 128)[owner]
    veins = np.sin(90.0 * (u * np.cos(turns) + v * np.sin(turns)))
    shade = (0.82 + 0.18 * veins) * np.clip(edge * 5.0, 0.35, 1.0) * (1.05 - 0.3 * centre)
    base = np.array([colour(h, 0.72, value) for h, value in zip(hues, values, strict=True)])[owner]
    mottle = 0.75 + 0.5 * fractal(rng, u, v, 14.0, 2)
    return base * (shade * mottle)[..., None]


_PAINTERS: dict[str, Callable[[Rng, Array, Array], Array]] = {
    "grass": _grass,
    "sand": _sand,
    "wood": _wood,
    "stone": _stone,
    "water": _water,
    "leaves": _leaves,
}

BACKGROUNDS: tuple[str, ...] = tuple(_PAINTERS)
"""The families of backgrounds, in the order of their ids."""
