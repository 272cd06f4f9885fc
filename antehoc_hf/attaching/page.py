"""A page of pictures: held-out images, and what each method says the network looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from antehoc_hf.visualization.images import COLORMAP, denormalise, map_values, overlay
from antehoc_hf.visualization.panel import DPI, NEUTRAL, QUIET, draw_picture, write_text

_CELL, _GAP, _HEAD, _LINE = 1.6, 0.08, 0.35, 0.22  # inches


def save_page(
    path: Path,
    pixel_values: Tensor,
    maps: Mapping[str, Tensor],
    captions: Sequence[str],
    config: Any,
    without_evidence: Sequence[bool],
) -> None:
    """
    A row for each image: the image, then its overlay with the map of each method.

    Args:
        path (`Path`): of the picture.
        pixel_values (`Tensor`): (B, 3, H, W), normalised.
        maps (`dict`): method → (B, 1, H, W) in [0, 1].
        captions: what is predicted, one for each image.
        config: of the model, for mean and standard deviation.
        without_evidence: images for which the first method found nothing.
    """
    images = denormalise(pixel_values, config.image_mean, config.image_std)
    names = ["image", *maps]
    tall = _CELL * images.shape[1] / images.shape[2]
    width = len(names) * (_CELL + _GAP) + _GAP
    height = _HEAD + len(images) * (tall + _LINE + _GAP)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    for column, name in enumerate(names):
        left = _GAP + column * (_CELL + _GAP)
        write_text(figure, left / width, 1 - 0.2 / height, name, size=10, weight="bold", color=NEUTRAL, va="center")
        for row, image in enumerate(images):
            top = _HEAD + row * (tall + _LINE + _GAP)
            axes = figure.add_axes((left / width, 1 - (top + tall) / height, _CELL / width, tall / height))
            nothing = column == 1 and without_evidence[row]
            shown = map_values(maps[name][row]) if nothing else image
            shown = overlay(image, maps[name][row]) if column and not nothing else shown
            draw_picture(axes, shown, COLORMAP, no_evidence=nothing)
            if column == 0:
                y = 1 - (top + tall + 0.05) / height
                write_text(figure, left / width, y, captions[row], size=8, color=QUIET, va="top")
    figure.savefig(path)
