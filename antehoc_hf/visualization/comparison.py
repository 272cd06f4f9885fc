"""One image and what several methods say the model looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from antehoc_hf.visualization.images import COLORMAP, Image, map_values, overlay
from antehoc_hf.visualization.layout import MARGIN, TITLE, Layout
from antehoc_hf.visualization.panel import DPI, NEUTRAL, QUIET, draw_bar, draw_picture, write_text


def comparison(
    image: Image,
    maps: Mapping[str, Any],
    *,
    notes: Mapping[str, str] | None = None,
    without_evidence: Sequence[str] = (),
    title: str | None = None,
    alpha: float = 0.75,
    colormap: str = COLORMAP,
    columns: int = 5,
) -> Figure:
    """
    The image, then its overlay with the map of each method, all on one colour scale from 0 to 1.

    Args:
        image (`np.ndarray`): (H, W, 3) uint8.
        maps (`dict`): name of the method → (H, W) or (1, H, W) in [0, 1].
        notes (`dict`, *optional*): name → a few words below it, such as its time.
        without_evidence: names of the methods that found nothing; their picture says so.
        title (`str`, *optional*): of the figure.
        alpha, colormap: see `overlay`.
        columns (`int`): pictures in a row.

    Returns:
        `Figure`: with a canvas of its own and no global state.

    Raises:
        ValueError: if there is no map, or one does not fit the image.
    """
    if not maps:
        raise ValueError("There is no map to compare: give at least one.")
    names = ["image", *maps]
    layout = Layout(
        count=len(names),
        columns=min(columns, len(names)),
        kinds=1,
        ratio=image.shape[0] / image.shape[1],
        caption=0.42,
        title=TITLE if title else 0.0,
    )
    figure = Figure(figsize=(layout.width, layout.height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    for index, name in enumerate(names):
        axes = figure.add_axes(layout.cell(index, 0))
        nothing = name in without_evidence
        picture = image if name == "image" else overlay(image, maps[name], alpha, colormap)
        draw_picture(axes, map_values(maps[name]) if nothing else picture, colormap, no_evidence=nothing)
        left, top = layout.corner(index)
        x, y = left / layout.width, 1 - (top - 0.05) / layout.height
        line = 0.15 / layout.height
        note = (notes or {}).get(name, "")
        write_text(figure, x, y + (line if note else 0), name, size=10, weight="bold", color=NEUTRAL, va="bottom")
        write_text(figure, x, y, note, size=8, color=QUIET, va="bottom")
    draw_bar(figure, layout, colormap)
    if title:
        write_text(
            figure,
            MARGIN / layout.width,
            1 - 0.18 / layout.height,
            title,
            size=13,
            weight="bold",
            color=NEUTRAL,
            va="top",
        )
    return figure
