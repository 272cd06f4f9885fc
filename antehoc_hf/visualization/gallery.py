"""Cut-out regions side by side."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from antehoc_hf.visualization.images import Image
from antehoc_hf.visualization.layout import NEUTRAL, new_figure, write

_CELL, _GAP, _TITLE = 1.0, 0.08, 0.5  # inches


def gallery(crops: Sequence[Image], *, title: str | None = None, columns: int = 8) -> Figure:
    """Pictures of any size, each fitted into a square of its own.

    Args:
        crops: (h, w, 3) uint8 arrays.
        title (`str`, *optional*): of the figure.
        columns (`int`): pictures in a row.

    Returns:
        `Figure`: with a canvas of its own and no global state.

    Raises:
        ValueError: if there is no picture.
    """
    if not crops:
        raise ValueError("A gallery needs at least one picture.")
    columns = min(columns, len(crops))
    rows = -(-len(crops) // columns)
    head = _TITLE if title else _GAP
    width = max(columns * (_CELL + _GAP) + _GAP, 0.1 * len(title or ""))  # as wide as what is written above
    height = rows * (_CELL + _GAP) + _GAP + head
    figure = new_figure(width, height)
    for index, crop in enumerate(crops):
        row, column = divmod(index, columns)
        left, top = _GAP + column * (_CELL + _GAP), head + row * (_CELL + _GAP)
        axes = figure.add_axes((left / width, 1 - (top + _CELL) / height, _CELL / width, _CELL / height))
        axes.set_axis_off()
        axes.imshow(crop)
    if title:
        place = (_GAP / width, 1 - 0.14 / height)
        write(figure, place, title, size=11, weight="bold", color=NEUTRAL, va="top")
    return figure
