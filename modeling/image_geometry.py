"""Where a point of an image lies after the image processor has resized and cropped it, and back."""

import math
from typing import NamedTuple

from torch import Tensor


class ImageGeometry(NamedTuple):
    """
    How the image processor maps an image onto the network's input: resized, then cropped or padded.

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
    """
    The geometry of timm's evaluation transform.

    Args:
        height, width (`int`): of the image.
        image_size (`tuple[int, int]`): height and width of the network's input.
        crop_pct (`float`): the image is resized to size / crop_pct, then cropped.
        crop_mode (`str`): `"center"`, `"squash"` or `"border"`, as in timm.

    Raises:
        ValueError: if the image has no pixels.
    """
    if height < 1 or width < 1:
        raise ValueError(f"An image of {width}×{height} pixels has none.")
    target = (math.floor(image_size[0] / crop_pct), math.floor(image_size[1] / crop_pct))
    resized = _resized(height, width, target, crop_mode)
    offset = (_offset(resized[0], image_size[0]), _offset(resized[1], image_size[1]))
    return ImageGeometry((height, width), resized, offset, image_size)


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
