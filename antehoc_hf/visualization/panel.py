"""A panel of images and their maps, with matplotlib but without its global state."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from antehoc_hf.evaluation.maps import degenerate_maps
from antehoc_hf.visualization.images import COLORMAP, Image, map_values, overlay
from antehoc_hf.visualization.layout import NEUTRAL, QUIET, Layout, Picture, draw_pictures, write

_CAPTION = 0.3  # inches

# A calm green and a red that people with any colour vision tell apart by lightness; a sign goes with each.
_COLOURS = {True: "#1b7f5c", False: "#c8322b", None: NEUTRAL}
_SIGNS = {True: "✓ ", False: "✗ ", None: ""}


@dataclass(frozen=True)
class Caption:
    """A line of text next to an image, and a second, quieter line.

    Attributes:
        text (`str`): e.g. the predicted class and its probability.
        detail (`str`): e.g. the true class.
        right (`bool`, *optional*): green with a tick, or red with a cross; None: neutral.
    """

    text: str
    detail: str = ""
    right: bool | None = None


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
    """A row for each image: image, map, overlay and, if given, energy map, with one scale of colours from 0 to 1.

    Args:
        images (`np.ndarray`): (N, H, W, 3) uint8, see `denormalise`; or larger ones, see `photo_parts`.
        maps (`Tensor`): (N, 1, h, w) in [0, 1].
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
    labels = as_captions(captions, len(images))
    rows = [
        {"image": image, "map": map_, "overlay": over}
        for image, map_, over in pictures_of(images, maps, degenerate, alpha, colormap)
    ]
    if energy_images is not None:
        if energy_images.shape != images.shape:
            raise ValueError(
                f"Energy images must be like the images, {images.shape}, but they are {energy_images.shape}."
            )
        for row, energy in zip(rows, energy_images, strict=True):
            row["energy map"] = energy
    return captioned(rows, labels, title, columns, colormap)[0]


def captioned(
    rows: Sequence[dict[str, Picture]], labels: Sequence[Caption], title: str | None, columns: int, colormap: str
) -> tuple[Figure, Layout]:
    """Pictures of each image with its caption above them.

    Raises:
        ValueError: for no columns.
    """
    if columns < 1:
        raise ValueError(f"columns={columns!r} must be at least 1.")
    caption = _CAPTION if any(label.text for label in labels) else 0.0
    figure, layout = draw_pictures(rows, colormap, columns=columns, caption=caption, title=title)
    for index, label in enumerate(labels):
        left, top = layout.corner(index)
        style = {"size": 11, "weight": "bold", "color": _COLOURS[label.right], "va": "bottom"}
        # After its sign: colour alone would not reach everyone.
        write(figure, layout.place(left, top - 0.07), _SIGNS[label.right] + label.text, **style)
        right = layout.place(left + layout.block, top - 0.07)
        write(figure, right, label.detail, size=10, color=QUIET, va="bottom", ha="right")
    return figure, layout


def pictures_of(
    images: Image, maps: Tensor, degenerate: Tensor | None = None, alpha: float = 0.75, colormap: str = COLORMAP
) -> list[tuple[Image, Picture, Image]]:
    """Image, map (None where it shows nothing) and overlay of each.

    Raises:
        ValueError: if there is no image, or shapes don't fit.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or len(images) == 0:
        raise ValueError(
            f"images must be (N, H, W, 3) uint8, at least one, but they are {images.shape} {images.dtype}."
        )
    if maps.ndim != 4 or maps.shape[:2] != (len(images), 1):
        raise ValueError(f"Maps of images {images.shape} must be (N, 1, H, W), but they are {tuple(maps.shape)}.")
    flat = degenerate_maps(maps).cpu()
    flat = flat if degenerate is None else flat | degenerate.cpu().bool()
    # A map without contrast would tint the whole overlay, and look like something.
    shown = torch.where(flat[:, None, None, None], 0.0, maps.detach().float().cpu())
    return [
        (image, None if nothing else map_values(map_), overlay(image, map_, alpha, colormap))
        for image, map_, nothing in zip(images, shown, flat.tolist(), strict=True)
    ]


def as_captions(captions: Sequence[Caption | str] | None, count: int) -> list[Caption]:
    """One for each of so many images.

    Raises:
        ValueError: if there are more or fewer.
    """
    captions = [""] * count if captions is None else captions
    if len(captions) != count:
        raise ValueError(f"There are {count} images but {len(captions)} captions: give one for each.")
    return [Caption(caption) if isinstance(caption, str) else caption for caption in captions]
