"""Distractors lying on the ground: twigs, leaves, pebbles, berries and petals, alike in every class.

They resemble parts on purpose (a twig a horn, a leaf a wing, a berry a mace) and say nothing about the class.
"""

import math
from collections.abc import Callable

import numpy as np

from antehoc_hf.shapes import geometry
from antehoc_hf.shapes.geometry import Array
from antehoc_hf.shapes.parts import PaintLayer
from antehoc_hf.shapes.textures import Colour, Rng, colour

CLUTTER = "clutter"


def clutter_layers(rng: Rng, size: int) -> list[PaintLayer]:
    """Three to six distractors of random kind, place, turn and size, the lowest first."""
    layers = []
    for _ in range(int(rng.integers(3, 7))):
        place = rng.uniform(0.05, 0.95, 2) * size - 0.5
        reach = rng.uniform(0.07, 0.13) * size
        angle, lit = rng.uniform(0.0, 2.0 * math.pi, 2)
        kind = _KINDS[int(rng.integers(len(_KINDS)))]
        window = geometry.window((place[0], place[1]), 1.5 * reach, size)
        x, y = geometry.pixel_grid(*window)
        u, v = geometry.rotated((x - place[0]) / reach, (y - place[1]) / reach, angle)
        distance, rgb = kind(rng, u, v)
        depth = np.clip(-distance / 0.35, 0.0, 1.0)
        shade = (0.6 + 0.4 * np.minimum(1.0, 2.0 * depth)) * (1.0 + 0.25 * (u * math.cos(lit) + v * math.sin(lit)))
        alpha = np.clip(0.5 - distance * reach / 0.8, 0.0, 1.0)
        layers.append(PaintLayer(CLUTTER, window, alpha, np.clip(rgb * shade[..., None], 0.0, 1.0)))
    return layers


def _flat(paint: Colour, like: Array) -> Array:
    return np.broadcast_to(np.asarray(paint), (*like.shape, 3))


def _twig(rng: Rng, u: Array, v: Array) -> tuple[Array, Array]:
    stem = geometry.segment(u, v, (-1.3, 0.0), (1.1, 0.1), 0.13, 0.08)
    side = geometry.segment(u, v, (0.1, 0.0), (0.8, rng.choice([-0.6, 0.6])), 0.09, 0.05)
    return np.minimum(stem, side), _flat(colour(rng.uniform(0.04, 0.1), 0.45, rng.uniform(0.3, 0.7)), u)


def _leaf(rng: Rng, u: Array, v: Array) -> tuple[Array, Array]:
    distance = geometry.lens(u, v, (0.0, 0.0), 1.2, rng.uniform(0.3, 0.5))
    paint = colour(rng.uniform(0.02, 0.36), rng.uniform(0.5, 0.85), rng.uniform(0.5, 0.9))
    rib = 1.0 - 0.35 * np.clip(1.0 - np.abs(v) / 0.07, 0.0, 1.0) - 0.12 * (np.sin(12.0 * (u - np.abs(v))) > 0.4)
    return distance, _flat(paint, u) * rib[..., None]


def _pebble(rng: Rng, u: Array, v: Array) -> tuple[Array, Array]:
    distance = geometry.ellipse(u, v, (0.0, 0.0), (0.7, rng.uniform(0.4, 0.6)))
    return distance, _flat(colour(rng.random(), rng.uniform(0.03, 0.2), rng.uniform(0.45, 0.9)), u)


def _berry(rng: Rng, u: Array, v: Array) -> tuple[Array, Array]:
    distance = np.minimum(
        geometry.disc(u, v, (0.25, 0.0), 0.5), geometry.segment(u, v, (-0.2, 0.0), (-1.0, 0.15), 0.08, 0.05)
    )
    shine = np.clip(0.5 - geometry.disc(u, v, (0.4, -0.15), 0.12) * 6.0, 0.0, 1.0)[..., None]
    paint = _flat(colour(rng.random(), rng.uniform(0.6, 0.95), rng.uniform(0.65, 1.0)), u)
    return distance, paint * (1.0 - shine) + shine


def _petals(rng: Rng, u: Array, v: Array) -> tuple[Array, Array]:
    angle, radius = np.arctan2(v, u), np.hypot(u, v)
    distance = (radius - 0.75 - 0.22 * np.cos(5.0 * angle)) * 0.7
    paint = _flat(colour(rng.random(), rng.uniform(0.2, 0.7), rng.uniform(0.85, 1.0)), u)
    heart = np.clip(0.5 - (radius - 0.24) * 6.0, 0.0, 1.0)[..., None]
    return distance, paint * (1.0 - heart) + np.asarray(colour(0.13, 0.8, 0.95)) * heart


_KINDS: tuple[Callable[[Rng, Array, Array], tuple[Array, Array]], ...] = (_twig, _leaf, _pebble, _berry, _petals)
