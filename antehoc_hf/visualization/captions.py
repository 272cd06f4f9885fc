"""Captions next to image, map and overlay; and where each word of a caption was found."""

import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import Tensor

from antehoc_hf.visualization.images import COLORMAP, Image, overlay
from antehoc_hf.visualization.layout import CELL, GAP, NEUTRAL, QUIET, Layout, draw_pictures, write
from antehoc_hf.visualization.panel import pictures_of

_TEXT, _LINE_LENGTH = 3.0, 34  # inches, and the characters that fit into them


@dataclass(frozen=True)
class Described:
    """What is said of an image.

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
    """A row for each image: image, map, overlay and caption.

    Args:
        captions (`list[Described]`): N of them.
        images, maps, degenerate, title, columns, colormap: see `panel`.

    Raises:
        ValueError: if the numbers or shapes differ.
    """
    _check(len(images), len(captions))
    rows = [
        {"image": image, "map": map_, "overlay": over}
        for image, map_, over in pictures_of(images, maps, degenerate, colormap=colormap)
    ]
    figure, layout = draw_pictures(rows, colormap, columns=columns, text=_TEXT, title=title)
    for index, described in enumerate(captions):
        _write_caption(figure, layout, index, described)
    return figure


def word_map_strip(
    image: Image,
    words: Sequence[str],
    maps: Tensor,
    whole_map: Tensor | None = None,
    *,
    unlearned: Collection[str] = (),
    colormap: str = COLORMAP,
) -> Figure:
    """One image, and for each word of its caption where the decoder found it.

    Args:
        image (`np.ndarray`): (H, W, 3) uint8.
        words: T words.
        maps (`Tensor`): (T, 1, h, w) in [0, 1], such as a row of `word_maps`.
        whole_map (`Tensor`, *optional*): (1, h, w), the map of the whole caption, drawn before them.
        unlearned: words that are marked, since their maps explain nothing.

    Raises:
        ValueError: if the numbers or shapes differ.
    """
    _check(len(maps), len(words))
    rows = [{"": image}]
    if whole_map is not None:
        rows.append({"the whole caption": overlay(image, whole_map, colormap=colormap)})
    rows += [{word: overlay(image, map_, colormap=colormap)} for word, map_ in zip(words, maps, strict=True)]
    figure, layout = draw_pictures(rows, colormap, columns=8, caption=0.25, headings=False)
    for index, row in enumerate(rows):
        left, top = layout.corner(index)
        place = layout.place(left + CELL / 2, top - 0.06)
        word = next(iter(row))
        mark, color = (" (not learned)", QUIET) if word in unlearned else ("", NEUTRAL)
        write(figure, place, word + mark, size=10, color=color, ha="center", va="bottom")
    return figure


def _write_caption(figure: Figure, layout: Layout, index: int, described: Described) -> None:
    left, top = layout.corner(index)
    left += 3 * (CELL + GAP) + GAP
    lines = textwrap.wrap(described.caption, _LINE_LENGTH, max_lines=4, placeholder=" …") or ["(no words)"]
    bold = {"size": 10, "weight": "bold", "color": NEUTRAL, "va": "top"}
    write(figure, layout.place(left, top + 0.05), "\n".join(lines), **bold)
    quiet = []
    if described.probability is not None:
        quiet.append(f"{100 * described.probability:.0f} % a word")
    if described.reference is not None:
        quiet += textwrap.wrap(f"“{described.reference}”", _LINE_LENGTH + 6, max_lines=3, placeholder=" …")
    below = layout.place(left, top + 0.11 + 0.165 * len(lines))
    write(figure, below, "\n".join(quiet), size=8.5, color=QUIET, va="top")


def _check(images: int, captions: int) -> None:
    if captions != images:
        raise ValueError(f"There are {images} images but {captions} captions: give one for each.")
