"""Dominant regions: the connected parts of an image where a map is high."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from antehoc_hf.evaluation.maps import minmax_maps
from antehoc_hf.explainers.extras import needed


@dataclass(frozen=True)
class Region:
    """One connected part.

    Attributes:
        box (`tuple[int, int, int, int]`): left, top, right, bottom in pixels; right and bottom are outside.
        mask (`np.ndarray`): (H, W) bool.
        strength (`float`): mean of the map within, in [0, 1].
    """

    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]
    strength: float

    @property
    def area(self) -> int:
        """In pixels."""
        return int(self.mask.sum())

    def crop(self, image: NDArray[Any], least: float = 0.0) -> NDArray[Any]:
        """The region cut out of an image (H, W, …).

        Args:
            image: the map's image, of any size.
            least (`float`): share of the sides that is cut out at least, to see what it is a part of.
        """
        left, top, right, bottom = self.box
        (first, last), (start, stop) = (
            _stretched(low, high, side, length, least)
            for low, high, side, length in zip(
                (top, left), (bottom, right), self.mask.shape, image.shape[:2], strict=True
            )
        )
        return image[first:last, start:stop]


def _stretched(low: int, high: int, side: int, length: int, least: float) -> tuple[int, int]:
    """Pixels `low` to `high` of `side`, as pixels of `length`, at least a share of them, about the same middle."""
    missing = max(least * side - (high - low), 0.0) / 2
    first = min(max(low - missing, 0.0), side - (high - low) - 2 * missing)
    return round(first * length / side), round((first + high - low + 2 * missing) * length / side)


def dominant_regions(
    maps: Tensor, threshold: float = 0.8, least_area: float = 0.0, most: int | None = None
) -> list[list[Region]]:
    """The parts of each image where its map, stretched to [0, 1], reaches a threshold (the paper, section 3.1):
    connected components, neighbours at corners included.

    Args:
        maps (`Tensor`): (B, 1, H, W).
        threshold (`float`): in (0, 1].
        least_area (`float`): smaller parts are left out; a share of the image.
        most (`int`, *optional*): the strongest so many of each image.

    Returns:
        `list[list[Region]]`: of each image, the largest sum of the map first; none for a map that shows nothing.

    Raises:
        ValueError: for a threshold outside (0, 1] or maps of another shape.
        ImportError: if scipy is not installed.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold!r} must lie in (0, 1].")
    if maps.ndim != 4 or maps.shape[1] != 1:
        raise ValueError(f"maps must be (B, 1, H, W), not {tuple(maps.shape)}.")
    label = needed("scipy.ndimage", extra="concepts").label
    stretched = minmax_maps(maps.detach().nan_to_num(0.0, 0.0, 0.0)).cpu().numpy()[:, 0]
    return [_of_one(map_, label, threshold, least_area, most) for map_ in stretched]


def _of_one(
    map_: NDArray[np.float32], label: Any, threshold: float, least_area: float, most: int | None
) -> list[Region]:
    # A hair below, so that the maximum itself reaches a threshold of 1 whatever its rounding.
    parts, count = label(map_ >= threshold - 1e-6, structure=np.ones((3, 3)))
    regions = []
    for number in range(1, count + 1):
        mask = parts == number
        if mask.sum() < least_area * mask.size:
            continue
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        regions.append(Region(box, mask, float(map_[mask].mean())))
    regions.sort(key=lambda region: -region.strength * region.area)
    return regions[:most]
