"""Where everything stands in a figure of maps: a grid of images, each with its pictures side by side."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

DPI = 150
NEUTRAL, QUIET = "#3a3f45", "#6b7178"
# Lengths in inches.
CELL, GAP, BLOCK_GAP, ROW_GAP, MARGIN = 1.6, 0.08, 0.45, 0.14, 0.3
HEADING, TITLE, BAR = 0.3, 0.45, 0.62
TITLE_LINE, TITLE_LETTER = 0.24, 0.115

Picture = NDArray[Any] | None
"""A map (H, W) in [0, 1], an image (H, W, 3) uint8, or None: there is no evidence to be seen."""


@dataclass(frozen=True)
class Layout:
    """Positions in a figure. They are measured in inches from the top left; matplotlib counts from the bottom left.

    Attributes:
        count, columns (`int`): images, and how many stand side by side.
        kinds (`int`): pictures of each image.
        ratio (`float`): height over width of a picture.
        caption, text (`float`): height of the text above an image, width of that to its right; 0 for none.
        head (`float`): height of the figure's title and headings.
    """

    count: int
    columns: int
    kinds: int
    ratio: float
    caption: float
    text: float
    head: float

    @property
    def block(self) -> float:
        """Width of an image's pictures and text."""
        return self.kinds * CELL + (self.kinds - 1) * GAP + self.text

    @property
    def gap(self) -> float:
        """Between two images."""
        return BLOCK_GAP if self.kinds > 1 else 2 * GAP

    @property
    def row(self) -> float:
        """Height of one row, with its caption."""
        return self.caption + CELL * self.ratio + ROW_GAP

    @property
    def width(self) -> float:
        """Of the figure."""
        return 2 * MARGIN + self.columns * self.block + (self.columns - 1) * self.gap

    @property
    def height(self) -> float:
        """Of the figure."""
        return self.head + -(-self.count // self.columns) * self.row + BAR

    def corner(self, index: int) -> tuple[float, float]:
        """Left and upper edge of an image's block, in inches, below its caption."""
        row, column = divmod(index, self.columns)
        return MARGIN + column * (self.block + self.gap), self.head + row * self.row + self.caption

    def cell(self, index: int, kind: int) -> tuple[float, float, float, float]:
        """(left, bottom, width, height) of a picture, in parts of the figure."""
        left, top = self.corner(index)
        x, y = self.place(left + kind * (CELL + GAP), top + CELL * self.ratio)
        return x, y, CELL / self.width, CELL * self.ratio / self.height

    def place(self, left: float, top: float) -> tuple[float, float]:
        """A point in inches from the top left, in parts of the figure from the bottom left."""
        return left / self.width, 1 - top / self.height


def draw_pictures(
    rows: Sequence[Mapping[str, Picture]],
    colormap: str,
    *,
    columns: int = 1,
    caption: float = 0.0,
    text: float = 0.0,
    title: str | None = None,
    headings: bool = True,
) -> tuple[Figure, Layout]:
    """The pictures of each image by heading, with one scale of colours for all maps.

    Returns:
        `tuple[Figure, Layout]`: a figure with a canvas of its own and no global state, its axes in the order of the
            pictures; and where more can be written.
    """
    first = next(picture for row in rows for picture in row.values() if picture is not None)
    layout = Layout(
        count=len(rows),
        columns=min(columns, len(rows)),
        kinds=len(rows[0]),
        ratio=first.shape[0] / first.shape[1],
        caption=caption,
        text=text,
        head=HEADING if headings else GAP,
    )
    lines = textwrap.wrap(title or "", int((layout.width - 2 * MARGIN) / TITLE_LETTER))
    if lines:
        layout = replace(layout, head=layout.head + TITLE + (len(lines) - 1) * TITLE_LINE)
    figure = new_figure(layout.width, layout.height)
    for index, row in enumerate(rows):
        for kind, (heading, picture) in enumerate(row.items()):
            axes = figure.add_axes(layout.cell(index, kind))
            _draw(axes, picture, first.shape, colormap)
            if headings and index < layout.columns:
                axes.set_title(heading, size=9, color=QUIET, pad=4 + 72 * caption)
    _draw_bar(figure, layout, colormap)
    if lines:
        write(figure, layout.place(MARGIN, 0.18), "\n".join(lines), size=14, weight="bold", color=NEUTRAL, va="top")
    return figure, layout


def new_figure(width: float, height: float) -> Figure:
    """So many inches, with a canvas of its own and no global state."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def write(figure: Figure, place: tuple[float, float], text: str, **style: Any) -> None:
    """Plain text: a dollar sign in a class's name does not begin a formula."""
    figure.text(*place, text, parse_math=False, **style)


def _draw(axes: Axes, picture: Picture, shape: tuple[int, ...], colormap: str) -> None:
    axes.set_axis_off()
    if picture is None:
        axes.imshow(np.full((*shape[:2], 3), 226, dtype=np.uint8))
        axes.text(0.5, 0.5, "no evidence", transform=axes.transAxes, ha="center", va="center", size=10, color=NEUTRAL)
    else:
        axes.imshow(picture, cmap=colormap, vmin=0, vmax=1)  # which only count for a map


def _draw_bar(figure: Figure, layout: Layout, colormap: str) -> None:
    width = min(3.0, 0.6 * (layout.width - 2 * MARGIN))
    axes = figure.add_axes((MARGIN / layout.width, 0.33 / layout.height, width / layout.width, 0.11 / layout.height))
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), colormap), cax=axes, orientation="horizontal")
    bar.set_ticks([0, 0.5, 1], labels=["0", "0.5", "1"])
    bar.outline.set_visible(False)
    axes.tick_params(length=0, pad=3, labelsize=9, labelcolor=QUIET)
    place = layout.place(MARGIN + width + 0.15, layout.height - 0.385)
    write(figure, place, "value of the map", size=9, color=QUIET, va="center")
