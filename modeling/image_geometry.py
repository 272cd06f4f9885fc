"""Where a point of an image lies after the image processor has resized and cropped it, and back."""

import math
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor

from .map_head import as_list, is_whole

MOST_PIXELS = 2**26  # 8,192 × 8,192
# Of a resized image, above which only what is used of it is made: of a thin image it may be thousands of times more.
_MOST_RESIZED = 2**23
_MOST_RESIZED_PER_INPUT = 16
_MARGIN = 4  # pixels around what is used, in units of the filter's scale: Lanczos reaches 3


class ImageGeometry(NamedTuple):
    """How the image processor maps an image onto the network's input: resized, then cropped or padded.

    Points of an image are in pixels, x to the right and y down; whole numbers are the centres of pixels, so that the
    image spans −0.5 … width − 0.5. Points of the input are in [0, 1] from edge to edge: the centre of pixel i of W is
    (i + 0.5) / W.

    Args:
        image (`tuple[int, int]`): height and width of the image.
        resized (`tuple[int, int]`): the same, resized.
        offset (`tuple[int, int]`): where the crop begins in the resized image, from top and left; negative where
            the image is padded.
        crop (`tuple[int, int]`): height and width of the input.
    """

    image: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    crop: tuple[int, int]

    @property
    def wasteful(self) -> bool:
        """Whether the image is so thin that [`resized_part`] is needed: nearly all of the resized image would be
        cropped off, or one of its sides is a single pixel, where timm may round to none and fail.
        """
        (rows, columns), (height, width) = self.resized, self.crop
        return min(self.resized) == 1 or rows * columns > max(_MOST_RESIZED, _MOST_RESIZED_PER_INPUT * height * width)

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the input for a pixel of the image, along x and y."""
        return self.resized[1] / self.image[1], self.resized[0] / self.image[0]

    def to_input(self, points: Tensor) -> Tensor:
        """(…, 2) x and y in pixels of the image → in [0, 1] of the input; beyond, where it is cropped off."""
        scale, offset, size = self._as(points)
        return ((points + 0.5) * scale - offset) / size

    def to_image(self, points: Tensor) -> Tensor:
        """(…, 2) x and y in [0, 1] of the input → in pixels of the image; undoes [`to_input`]."""
        scale, offset, size = self._as(points)
        return (points * size + offset) / scale - 0.5

    def _as(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scale, offset and size of the input, along x and y."""
        offset, size = (self.offset[1], self.offset[0]), (self.crop[1], self.crop[0])
        return points.new_tensor(self.scale), points.new_tensor(offset), points.new_tensor(size)


def evaluation_geometry(
    height: int, width: int, image_size: tuple[int, int], crop_pct: float, crop_mode: str
) -> ImageGeometry:
    """The geometry of timm's evaluation transform.

    Args:
        height, width (`int`): of the image.
        image_size (`tuple[int, int]`): height and width of the network's input.
        crop_pct (`float`): the image is resized to size / crop_pct, then cropped.
        crop_mode (`str`): `"center"`, `"squash"` or `"border"`, as in timm.

    A side that would be rounded to no pixel gets one, where timm fails.

    Raises:
        ValueError: if the image has no pixels.
    """
    if height < 1 or width < 1:
        raise ValueError(f"An image of {width}×{height} pixels has none.")
    target = (math.floor(image_size[0] / crop_pct), math.floor(image_size[1] / crop_pct))
    rows, columns = _resized(height, width, target, crop_mode)
    resized = (max(1, rows), max(1, columns))
    offset = (_offset(resized[0], image_size[0]), _offset(resized[1], image_size[1]))
    return ImageGeometry((height, width), resized, offset, image_size)


def resized_part(
    image: Image.Image, geometry: ImageGeometry, resample: Image.Resampling, around: int = 0
) -> tuple[Image.Image, tuple[int, int]]:
    """The part of the resized image that the crop keeps, without the rest: a line of 60000 pixels, resized to a height
    of 256, has 15 million columns, of which 224 are used.

    The pixels are those of the whole resized image, but for rounding: few differ, by one level of 255, and with the
    filters `NEAREST` and `BOX`, which have edges, few are taken from the pixel next to the one meant.

    Args:
        image: any image of the size that the geometry is of.
        geometry: see [`evaluation_geometry`].
        resample: Pillow's filter.
        around (`int`): pixels of the resized image to keep on every side of the crop, where there are any.

    Returns:
        The part, and where it begins in the resized image, from top and left.
    """
    rows = _Span.of(image.height, geometry.resized[0], geometry.offset[0], geometry.crop[0], around)
    columns = _Span.of(image.width, geometry.resized[1], geometry.offset[1], geometry.crop[1], around)
    # Whole pixels first: Pillow keeps a box with 32 bits, too few for fractions of large numbers.
    used = image.crop((columns.first, rows.first, columns.last, rows.last))
    # Sharp filters overshoot and are clipped after each direction, so the order matters. Pillow chooses it by the
    # sizes: for the whole image, not for the part.
    rows_first = image.height > max(image.width, geometry.resized[0])
    for step in ("rows", "columns") if rows_first else ("columns", "rows"):
        if step == "columns":
            box = (columns.box[0], 0.0, columns.box[1], float(used.height))
            used = used.resize((columns.size, used.height), resample, box)
        else:
            box = (0.0, rows.box[0], float(used.width), rows.box[1])
            used = used.resize((used.width, rows.size), resample, box)
    return used, (rows.begin, columns.begin)


class _Span(NamedTuple):
    """Along one side: `size` pixels of the resized image from `begin` on, and what they are made of."""

    begin: int
    size: int
    first: int
    last: int
    box: tuple[float, float]

    @classmethod
    def of(cls, side: int, resized: int, offset: int, crop: int, around: int) -> "_Span":
        begin, end = max(0, offset - around), min(resized, offset + crop + around)
        scale = side / resized
        reach = math.ceil(_MARGIN * max(scale, 1.0))
        first = max(0, math.floor(begin * scale) - reach)
        last = min(side, math.ceil(end * scale) + reach)
        box = (begin * scale - first, min(end * scale, side) - first)
        return cls(begin, end - begin, first, last, box)


def _resized(height: int, width: int, target: tuple[int, int], crop_mode: str) -> tuple[int, int]:
    """timm rounds in three ways: torchvision's Resize cuts off the longer side, its own rounds both sides."""
    if crop_mode == "squash":
        return target
    if crop_mode == "center" and target[0] == target[1]:
        if width <= height:
            return int(target[0] * height / width), target[0]
        return target[0], int(target[0] * width / height)
    ratios = (height / target[0], width / target[1])
    ratio = max(ratios) if crop_mode == "border" else min(ratios)
    return round(height / ratio), round(width / ratio)


def _offset(side: int, crop: int) -> int:
    """Of a centred crop; negative where the side is too short and is padded, the odd pixel at its end."""
    return -((crop - side) // 2) if crop > side else round((side - crop) / 2)


def height_and_width(size: Any) -> list[int]:
    """`[height, width]` of a side, a pair, or an array of two.

    Raises:
        ValueError: if it is none of these.
    """
    values = as_list(size)
    values = [values, values] if is_whole(values) else values
    if not (isinstance(values, list) and len(values) == 2 and all(is_whole(side) and side > 0 for side in values)):
        raise ValueError(f"image_size={size!r} must be a positive number of pixels or [height, width].")
    if values[0] * values[1] > MOST_PIXELS:
        raise ValueError(
            f"image_size={size!r} makes {values[0]}×{values[1]} pixels, more than the {MOST_PIXELS:,} that an image "
            "may have: give a smaller one, for most networks 224."
        )
    return values
