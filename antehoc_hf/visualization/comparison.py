"""One image and what several methods say the model looked at."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from antehoc_hf.visualization.images import COLORMAP, Image, overlay
from antehoc_hf.visualization.layout import NEUTRAL, QUIET, Picture, draw_pictures, write


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
    """The image, then its overlay with the map of each method, all on one colour scale from 0 to 1.

    Args:
        image (`np.ndarray`): (H, W, 3) uint8, of any size; see `photo_parts`.
        maps (`dict`): name of the method → (h, w) or (1, h, w) in [0, 1].
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
    rows: list[dict[str, Picture]] = [{"image": image}]
    for name, map_ in maps.items():
        rows.append({name: None if name in without_evidence else overlay(image, map_, alpha, colormap)})
    figure, layout = draw_pictures(rows, colormap, columns=columns, caption=0.42, title=title, headings=False)
    for index, row in enumerate(rows):
        name, (left, top) = next(iter(row)), layout.corner(index)
        note = (notes or {}).get(name, "")
        bold = {"size": 10, "weight": "bold", "color": NEUTRAL, "va": "bottom"}
        write(figure, layout.place(left, top - (0.2 if note else 0.05)), name, **bold)
        write(figure, layout.place(left, top - 0.05), note, size=8, color=QUIET, va="bottom")
    return figure
