"""Captions next to image, map and overlay; and where each word of a caption was found."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from antehoc_hf.evaluation.maps import degenerate_maps
from antehoc_hf.visualization.images import COLORMAP, Image, map_values, overlay
from antehoc_hf.visualization.panel import DPI, NEUTRAL

_QUIET = "#6b7178"
# Lengths in inches.
_CELL, _GAP, _MARGIN, _TEXT, _TITLE, _HEADING = 1.5, 0.08, 0.3, 3.0, 0.45, 0.3
_LINE_LENGTH = 34  # characters that fit into _TEXT


@dataclass(frozen=True)
class Described:
    """
    What is said of an image.

    Attributes:
        caption (`str`): what the model says.
        probability (`float`, *optional*): of it, length-normalised.
        reference (`str`, *optional*): what a person said.
    """

    caption: str
    probability: float | None = None
    reference: str | None = None


def caption_panel(
    images: Image,
    maps: Tensor,
    captions: Sequence[Described],
    *,
    degenerate: Tensor | None = None,
    title: str | None = None,
    columns: int = 1,
    colormap: str = COLORMAP,
) -> Figure:
    """
    A row for each image: image, map, overlay and caption.

    Args:
        images (`np.ndarray`): (N, H, W, 3) uint8, see `denormalise`.
        maps (`Tensor`): (N, 1, H, W) in [0, 1].
        captions (`list[Described]`): N of them.
        degenerate (`Tensor`, *optional*): (N,), further maps that show nothing; constant ones are found.
        title (`str`, *optional*): of the figure.
        columns (`int`): images side by side.

    Raises:
        ValueError: if the numbers or shapes differ.
    """
    _check(images, maps, len(captions))
    maps = maps.detach().float().cpu()
    flat = degenerate_maps(maps) if degenerate is None else degenerate_maps(maps) | degenerate.cpu().bool()
    high = _CELL * images.shape[1] / images.shape[2]
    block = 3 * _CELL + 2 * _GAP + _TEXT
    rows = -(-len(images) // columns)
    width = 2 * _MARGIN + columns * block + (columns - 1) * _MARGIN
    top = _MARGIN + (_TITLE if title else 0) + _HEADING
    height = top + rows * (high + 2 * _GAP) + _MARGIN
    figure = _figure(width, height)
    for index, described in enumerate(captions):
        row, column = divmod(index, columns)
        left = _MARGIN + column * (block + _MARGIN)
        upper = top + row * (high + 2 * _GAP)
        shown = torch.zeros_like(maps[index]) if flat[index] else maps[index]
        pictures = [images[index], map_values(shown), overlay(images[index], shown, colormap=colormap)]
        for kind, (name, picture) in enumerate(zip(("image", "map", "overlay"), pictures, strict=True)):
            box = (left + kind * (_CELL + _GAP), height - upper - high, _CELL, high)
            axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
            _draw(axes, picture, colormap, empty=bool(flat[index]) and kind == 1)
            if row == 0:
                axes.set_title(name, size=9, color=_QUIET, pad=4)
        x = (left + 3 * (_CELL + _GAP) + _GAP) / width
        _write_caption(figure, described, x, 1 - (upper + 0.05) / height, height)
    if title:
        figure.text(
            _MARGIN / width, 1 - 0.18 / height, title, size=14, weight="bold", color=NEUTRAL, va="top",
            parse_math=False,
        )  # fmt: skip
    return figure


def word_map_strip(
    image: Image, words: Sequence[str], maps: Tensor, whole_map: Tensor | None = None, *, colormap: str = COLORMAP
) -> Figure:
    """
    One image, and for each word of its caption where the decoder found it.

    Args:
        image (`np.ndarray`): (H, W, 3) uint8.
        words: T words.
        maps (`Tensor`): (T, 1, H, W) in [0, 1], such as a row of `word_maps`.
        whole_map (`Tensor`, *optional*): (1, H, W), the map of the whole caption, drawn before them.

    Raises:
        ValueError: if the numbers or shapes differ.
    """
    _check(np.repeat(image[None], max(1, len(words)), axis=0), maps, len(words))
    shown: list[tuple[str, Any]] = [("", image)]
    if whole_map is not None:
        shown.append(("the whole caption", overlay(image, whole_map.detach().float().cpu(), colormap=colormap)))
    for word, map_ in zip(words, maps.detach().float().cpu(), strict=True):
        shown.append((word, overlay(image, map_, colormap=colormap)))
    columns = min(8, len(shown))
    rows = -(-len(shown) // columns)
    high = _CELL * image.shape[0] / image.shape[1]
    width = 2 * _MARGIN + columns * (_CELL + _GAP)
    height = 2 * _MARGIN + rows * (high + _HEADING)
    figure = _figure(width, height)
    for index, (word, picture) in enumerate(shown):
        row, column = divmod(index, columns)
        left, upper = _MARGIN + column * (_CELL + _GAP), _MARGIN + _HEADING + row * (high + _HEADING)
        axes = figure.add_axes((left / width, (height - upper - high) / height, _CELL / width, high / height))
        _draw(axes, picture, colormap, empty=False)
        axes.set_title(word, size=10, color=NEUTRAL, pad=4, parse_math=False)
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _draw(axes: Axes, picture: Any, colormap: str, empty: bool) -> None:
    axes.set_axis_off()
    if empty:
        axes.imshow(np.full((*picture.shape, 3), 226, dtype=np.uint8))
        axes.text(0.5, 0.5, "no evidence", transform=axes.transAxes, ha="center", va="center", size=10, color=NEUTRAL)
    elif picture.ndim == 2:
        axes.imshow(picture, cmap=colormap, vmin=0, vmax=1)
    else:
        axes.imshow(picture)


def _write_caption(figure: Figure, described: Described, x: float, y: float, height: float) -> None:
    lines = textwrap.wrap(described.caption, _LINE_LENGTH, max_lines=4, placeholder=" …") or ["(no words)"]
    figure.text(x, y, "\n".join(lines), size=10, weight="bold", color=NEUTRAL, va="top", parse_math=False)
    quiet = []
    if described.probability is not None:
        quiet.append(f"{100 * described.probability:.0f} % a word")
    if described.reference is not None:
        quiet += textwrap.wrap(f"“{described.reference}”", _LINE_LENGTH + 6, max_lines=3, placeholder=" …")
    below = y - (0.06 + 0.165 * len(lines)) / height
    figure.text(x, below, "\n".join(quiet), size=8.5, color=_QUIET, va="top", parse_math=False)


def _check(images: Image, maps: Tensor, captions: int) -> None:
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or len(images) == 0:
        raise ValueError(
            f"images must be (N, H, W, 3) uint8, at least one, but they are {images.shape} {images.dtype}."
        )
    if tuple(maps.shape) != (len(images), 1, *images.shape[1:3]):
        raise ValueError(f"Maps of images {images.shape} must be (N, 1, H, W), but they are {tuple(maps.shape)}.")
    if captions != len(images):
        raise ValueError(f"There are {len(images)} images but {captions} captions: give one for each.")
