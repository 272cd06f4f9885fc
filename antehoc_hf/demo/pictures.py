"""The demo's pictures: the map over the image, what a threshold leaves, points, and the same as parts of a page."""

import base64
import io
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from antehoc_hf.concepts.regions import Region, dominant_regions
from antehoc_hf.demo.analysis import Analysis, Points
from antehoc_hf.evaluation.maps import binarise
from antehoc_hf.visualization.images import Image as Pixels
from antehoc_hf.visualization.images import overlay
from antehoc_hf.visualization.landmarks import FOUND

SMALL_SIDE = 320  # of the others
_BOX = "#ffd54a"
_LEAST_AREA = 0.002  # smaller parts are dust
_MOST_REGIONS = 8
_MOST_NUMBERS = 20  # of points; more would hide the image
_LARGE, _SMALL = 28, 18  # letters; on a phone the picture is 155 pixels wide, a third of its own width
_MOST_LARGE = 8
_Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class View:
    """What the threshold makes of an image.

    Attributes:
        picture (`PIL.Image.Image`): for the page.
        regions (`tuple[Region, ...]`): dominant regions, the largest sum of the map first; none for threshold 0.
        shown (`float`): share of the image that is left, in [0, 1]; 1 for threshold 0.
    """

    picture: Image.Image
    regions: tuple[Region, ...]
    shown: float


def view(analysis: Analysis, threshold: float = 0.0, opacity: float = 1.0) -> View:
    """The map in colour over the image. With a threshold only where the map, stretched to [0, 1], reaches it, with its
    connected parts numbered; the rest is black. With opacity 0 that is the energy map, binarised.

    Args:
        analysis: what a model made of an image.
        threshold (`float`): in [0, 1]; 0 leaves the whole image.
        opacity (`float`): of the colours, in [0, 1]; 0 shows the image itself.

    Raises:
        ValueError: for another threshold or opacity.
        ImportError: above 0, if scipy is not installed.
    """
    for name, value in (("threshold", threshold), ("opacity", opacity)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value!r} must be in [0, 1].")
    regions: tuple[Region, ...] = ()
    shown = 1.0
    # A map that shows nothing would still tint the whole image.
    map_ = torch.zeros_like(analysis.map) if analysis.degenerate else analysis.map
    coloured = overlay(analysis.picture, map_[0])
    pixels = np.round(opacity * coloured + (1 - opacity) * analysis.picture).astype(np.uint8)
    if threshold > 0:
        mask = binarise(analysis.map, threshold)
        shown = float(mask.mean())
        left = F.interpolate(mask, size=analysis.picture.shape[:2], mode="nearest")[0, 0]
        pixels = np.where(left.numpy()[..., None] > 0, pixels, np.uint8(0))
        (found,) = dominant_regions(analysis.map, threshold, _LEAST_AREA, _MOST_REGIONS)
        regions = tuple(found)
    picture = Image.fromarray(pixels)
    scale = pixels.shape[0] / analysis.map.shape[-2]
    for number, region in enumerate(regions, 1):
        _draw_box(picture, region, number, scale)
    if isinstance(analysis.answer, Points):
        _draw_points(picture, analysis.answer)
    return View(picture, regions, shown)


def small_overlay(image: Pixels, map_: Tensor) -> Pixels:
    """The map (1, H, W) over the image (h, w, 3), of `SMALL_SIDE`."""
    scale = SMALL_SIDE / min(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return overlay(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)), map_)


@cache
def colour_bar() -> str:
    """The colours of a map from 0 to 1, over a grey image, as [`data_url`]."""
    ramp = torch.linspace(0, 1, 256)[None].expand(12, -1)
    return data_url(overlay(np.full((12, 256, 3), 128, dtype=np.uint8), ramp))


def data_url(picture: Pixels | Image.Image) -> str:
    """The picture as part of a page, a PNG inside an address: no file, and nothing to be fetched."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _draw_box(picture: Image.Image, region: Region, number: int, scale: float) -> None:
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = (round(edge * scale) for edge in region.box)
    draw.rectangle((left, top, right - 1, bottom - 1), outline="black", width=5)
    draw.rectangle((left + 1, top + 1, right - 2, bottom - 2), outline=_BOX, width=3)
    _draw_label(draw, str(number), _label(str(number), left + 4, top + 4, picture, _LARGE), _LARGE)


def _draw_points(picture: Image.Image, points: Points) -> None:
    """Each number outwards of its point, as far as it takes to hide no other number; none if there are too many."""
    draw = ImageDraw.Draw(picture)
    places = points.on_input * torch.tensor([picture.width, picture.height])
    outwards = F.normalize(places - places.mean(dim=0), dim=1)
    count = len(points.names)
    taken: list[_Box] = []
    size = _LARGE if count <= _MOST_LARGE else _SMALL
    if count <= _MOST_NUMBERS:
        for number, ((x, y), (right, down)) in enumerate(zip(places.tolist(), outwards.tolist(), strict=True), 1):
            for away in range(size + 4, 6 * size, size // 2):
                label = _label(str(number), x + away * right - size / 2, y + away * down - size / 2, picture, size)
                if not any(_overlap(label, other) for other in taken):
                    break
            taken.append(label)
            draw.line((x, y, (label[0] + label[2]) / 2, (label[1] + label[3]) / 2), fill="white", width=2)
    for x, y in places.tolist():
        draw.circle((x, y), 8, fill="white")
        draw.circle((x, y), 6, fill=FOUND)
    for number, label in enumerate(taken, 1):
        _draw_label(draw, str(number), label, size)


def _label(text: str, x: float, y: float, picture: Image.Image, size: int) -> _Box:
    """Where a label of that size stands, from its upper left corner on, moved into the picture."""
    width, height = ImageFont.load_default(size=size).getlength(text) + 8, size + 4
    x, y = min(max(x, 0), picture.width - width), min(max(y, 0), picture.height - height)
    return x, y, x + width, y + height


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _draw_label(draw: ImageDraw.ImageDraw, text: str, box: _Box, size: int) -> None:
    """Dark on light, readable on any ground."""
    draw.rectangle(box, fill="#ffffff", outline="#000000")
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    draw.text(middle, text, fill="#16191d", font=ImageFont.load_default(size=size), anchor="mm")
