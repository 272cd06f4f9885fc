"""A panel of images and their maps, with matplotlib but without its global state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from antehoc_hf.evaluation.maps import degenerate_maps
from antehoc_hf.visualization.images import COLORMAP, Image, map_values, overlay
from antehoc_hf.visualization.layout import CAPTION, MARGIN, TITLE, Layout

DPI = 150

# A calm green and a red that people with any colour vision tell apart by lightness; a sign goes with each.
RIGHT, WRONG, NEUTRAL = "#1b7f5c", "#c8322b", "#3a3f45"
QUIET = "#6b7178"


@dataclass(frozen=True)
class Caption:
    """
    A line of text next to an image, and a second, quieter line.

    Attributes:
        text (`str`): e.g. the predicted class and its probability.
        detail (`str`): e.g. the true class.
        right (`bool`, *optional*): green with a tick, or red with a cross; None: neutral.
    """

    text: str
    detail: str = ""
    right: bool | None = None

    @property
    def colour(self) -> str:
        """Of the text."""
        return {True: RIGHT, False: WRONG, None: NEUTRAL}[self.right]

    @property
    def marked(self) -> str:
        """The text after its sign: colour alone would not reach everyone."""
        return {True: "✓ ", False: "✗ ", None: ""}[self.right] + self.text


def panel(
    images: Image,
    maps: Tensor,
    captions: Sequence[Caption | str] | None = None,
    *,
    energy_images: Image | None = None,
    degenerate: Tensor | None = None,
    title: str | None = None,
    alpha: float = 0.75,
    colormap: str = COLORMAP,
    columns: int = 1,
) -> Figure:
    """
    A row for each image: image, map, overlay and, if given, energy map, with one scale of colours from 0 to 1.

    Args:
        images (`np.ndarray`): (N, H, W, 3) uint8, see `denormalise`.
        maps (`Tensor`): (N, 1, H, W) in [0, 1].
        captions (`list`, *optional*): N captions (or plain strings), drawn above each image.
        energy_images (`np.ndarray`, *optional*): (N, H, W, 3) uint8: what the map leaves of the image.
        degenerate (`Tensor`, *optional*): (N,) bool: maps that show nothing, labelled "no evidence". Maps that are
            constant or not finite are so in any case.
        title (`str`, *optional*): of the figure.
        alpha, colormap: see `overlay`.
        columns (`int`): how many images stand side by side.

    Returns:
        `Figure`: with a canvas of its own and no global state; `figure.savefig("maps.png")`.

    Raises:
        ValueError: if there is no image, numbers or shapes don't fit, or there is no such colormap.
    """
    labels = _captions(captions, len(images))
    _check_panel(images, maps, energy_images, columns)
    kinds = ["image", "map", "overlay", *(["energy map"] if energy_images is not None else [])]
    layout = Layout(
        count=len(images),
        columns=min(columns, len(images)),
        kinds=len(kinds),
        ratio=images.shape[1] / images.shape[2],
        caption=CAPTION if any(label.text for label in labels) else 0.0,
        title=TITLE if title else 0.0,
    )
    figure = Figure(figsize=(layout.width, layout.height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    flat = _shows_nothing(maps, degenerate)
    for index, label in enumerate(labels):
        # A map without contrast would tint the whole overlay, and look like something.
        shown = torch.zeros_like(maps[index]) if flat[index] else maps[index]
        pictures = [images[index], map_values(shown), overlay(images[index], shown, alpha, colormap)]
        if energy_images is not None:
            pictures.append(energy_images[index])
        for kind, picture in enumerate(pictures):
            axes = figure.add_axes(layout.cell(index, kind))
            draw_picture(axes, picture, colormap, no_evidence=bool(flat[index]) and kind == 1)
            if index < layout.columns:
                axes.set_title(kinds[kind], size=9, color=QUIET, pad=4 + 72 * layout.caption)
        _draw_caption(figure, layout, index, label)
    draw_bar(figure, layout, colormap)
    if title:
        x, y = MARGIN / layout.width, 1 - 0.18 / layout.height
        write_text(figure, x, y, title, size=14, weight="bold", color=NEUTRAL, va="top")
    return figure


def draw_picture(axes: Axes, picture: NDArray[Any], colormap: str, no_evidence: bool) -> None:
    """A map (H, W) or an image (H, W, 3); a grey field with words where there is no evidence."""
    axes.set_axis_off()
    if no_evidence:
        axes.imshow(np.full((*picture.shape[:2], 3), 226, dtype=np.uint8))
        axes.text(0.5, 0.5, "no evidence", transform=axes.transAxes, ha="center", va="center", size=10, color=NEUTRAL)
    elif picture.ndim == 2:
        axes.imshow(picture, cmap=colormap, vmin=0, vmax=1)
    else:
        axes.imshow(picture)


def _draw_caption(figure: Figure, layout: Layout, index: int, label: Caption) -> None:
    left, top = layout.corner(index)
    height = 1 - (top - 0.07) / layout.height
    right = (left + layout.block) / layout.width
    write_text(
        figure, left / layout.width, height, label.marked, size=11, weight="bold", color=label.colour, va="bottom"
    )
    write_text(figure, right, height, label.detail, size=10, color=QUIET, va="bottom", ha="right")


def write_text(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Plain text: a dollar sign in a class's name does not begin a formula."""
    figure.text(x, y, text, parse_math=False, **style)


def draw_bar(figure: Figure, layout: Layout, colormap: str) -> None:
    """One scale for all maps of the figure."""
    width = min(3.0, 0.6 * (layout.width - 2 * MARGIN))
    axes = figure.add_axes((MARGIN / layout.width, 0.33 / layout.height, width / layout.width, 0.11 / layout.height))
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), colormap), cax=axes, orientation="horizontal")
    bar.set_ticks([0, 0.5, 1], labels=["0", "0.5", "1"])
    bar.outline.set_visible(False)
    axes.tick_params(length=0, pad=3, labelsize=9, labelcolor=QUIET)
    x, y = (MARGIN + width + 0.15) / layout.width, 0.385 / layout.height
    write_text(figure, x, y, "value of the map", size=9, color=QUIET, va="center")


def _captions(captions: Sequence[Caption | str] | None, count: int) -> list[Caption]:
    if captions is None:
        return [Caption("")] * count
    if len(captions) != count:
        raise ValueError(f"There are {count} images but {len(captions)} captions: give one for each.")
    return [Caption(caption) if isinstance(caption, str) else caption for caption in captions]


def _check_panel(images: Image, maps: Tensor, energy_images: Image | None, columns: int) -> None:
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or len(images) == 0:
        raise ValueError(
            f"images must be (N, H, W, 3) uint8, at least one, but they are {images.shape} {images.dtype}."
        )
    if tuple(maps.shape) != (len(images), 1, *images.shape[1:3]):
        raise ValueError(f"Maps of images {images.shape} must be (N, 1, H, W), but they are {tuple(maps.shape)}.")
    if energy_images is not None and energy_images.shape != images.shape:
        raise ValueError(f"Energy images must be like the images, {images.shape}, but they are {energy_images.shape}.")
    if columns < 1:
        raise ValueError(f"columns={columns!r} must be at least 1.")


def _shows_nothing(maps: Tensor, degenerate: Tensor | None) -> Tensor:
    """(N,) bool."""
    found = degenerate_maps(maps).cpu()
    return found if degenerate is None else found | degenerate.cpu().bool()
