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
    _label(draw, str(number), left + 4, top + 4, picture)


def _draw_points(picture: Image.Image, points: Points) -> None:
    """Each number outwards of its point, so that those of near points do not hide each other; none if too many."""
    draw = ImageDraw.Draw(picture)
    places = points.on_input * torch.tensor([picture.width, picture.height])
    outwards = F.normalize(places - places.mean(dim=0), dim=1)
    for x, y in places.tolist():
        draw.circle((x, y), 8, fill="white")
        draw.circle((x, y), 6, fill=FOUND)
    if len(points.names) > _MOST_NUMBERS:
        return
    for number, ((x, y), (right, down)) in enumerate(zip(places.tolist(), outwards.tolist(), strict=True), 1):
        _label(draw, str(number), x + 22 * right - 9, y + 22 * down - 11, picture)


def _label(draw: ImageDraw.ImageDraw, text: str, x: float, y: float, picture: Image.Image) -> None:
    """Dark on light, readable on any ground, within the picture."""
    font = ImageFont.load_default(size=18)
    width = draw.textlength(text, font=font) + 8
    x, y = min(max(x, 0), picture.width - width), min(max(y, 0), picture.height - 22)
    draw.rectangle((x, y, x + width, y + 21), fill="#ffffff", outline="#000000")
    draw.text((x + 4, y), text, fill="#16191d", font=font)
