"""
Whether the map lies on the object, where a mask of the object is known.

A network may rightly look at something else than the object, so these measure agreement with the mask; on synthetic
images, where nothing but the object carries the class, they measure the explanation.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from antehoc_hf.evaluation.maps import check_maps, rank_pixels


def energy_share(maps: Tensor, masks: Tensor) -> Tensor:
    """
    Part of the map's sum that lies inside the mask: the energy-based pointing game (Wang et al., "Score-CAM", CVPR
    workshops 2020, Sec. 4.3).

    Args:
        maps (`Tensor`): (B, 1, H, W), not negative.
        masks (`Tensor`): (B, 1, H, W), bool or 0/1.

    Returns:
        `Tensor`: (B,) float32 in [0, 1]; NaN where the mask is empty or the map is zero.

    Raises:
        ValueError: if the shapes differ, the maps are negative or not finite, or the masks hold other values.
    """
    inside = _check(maps, masks)
    maps = maps.float()
    if maps.numel() and float(maps.min()) < 0:
        raise ValueError(f"The energy share needs maps without negative values, but the least is {float(maps.min())}.")
    share = (maps * inside).sum(dim=(1, 2, 3)) / maps.sum(dim=(1, 2, 3))
    return torch.where(inside.any(dim=(1, 2, 3)), share, torch.nan)


def energy_share_over_area(maps: Tensor, masks: Tensor) -> Tensor:
    """
    `energy_share` divided by the mask's share of the image: 1 is chance, the score of any constant map.

    The plain share favours large masks, which a constant map fills as well.

    Args:
        maps (`Tensor`): (B, 1, H, W), not negative.
        masks (`Tensor`): (B, 1, H, W), bool or 0/1.

    Returns:
        `Tensor`: (B,) float32, at least 0; NaN where the mask is empty or the map is zero.

    Raises:
        ValueError: see `energy_share`.
    """
    return energy_share(maps, masks) / masks.float().mean(dim=(1, 2, 3))


def pointing_game(maps: Tensor, masks: Tensor, tolerance: int = 0, seed: int = 0, first_index: int = 0) -> Tensor:
    """
    1 where the map's largest value lies inside the mask (Zhang et al., "Top-down Neural Attention by Excitation
    Backprop", ECCV 2016).

    Among equal largest values one is drawn at random, so that a constant map scores the mask's area and not 1.

    Args:
        maps (`Tensor`): (B, 1, H, W).
        masks (`Tensor`): (B, 1, H, W), bool or 0/1.
        tolerance (`int`): pixels by which the mask is widened (square neighbourhood); the source takes 15.
        seed, first_index (`int`): of the draw, see `rank_pixels`.

    Returns:
        `Tensor`: (B,) float32 of zeros and ones; NaN where the mask is empty.

    Raises:
        ValueError: if the shapes differ, the maps are not finite, the masks hold other values or the tolerance is
            negative.
    """
    if tolerance < 0:
        raise ValueError(f"tolerance={tolerance!r} must be a number of pixels, 0 or more.")
    inside = _check(maps, masks)
    wide = F.max_pool2d(inside.float(), 2 * tolerance + 1, stride=1, padding=tolerance) > 0
    top = rank_pixels(maps, seed, first_index).argmin(dim=1, keepdim=True)
    hit = wide.flatten(1).gather(1, top).squeeze(1).float()
    return torch.where(inside.any(dim=(1, 2, 3)), hit, torch.nan)


def _check(maps: Tensor, masks: Tensor) -> Tensor:
    """The masks as bool, on the device of the maps."""
    check_maps(maps)
    if maps.shape != masks.shape:
        raise ValueError(
            f"Maps and masks must have one shape, but theirs are {tuple(maps.shape)} and {tuple(masks.shape)}."
        )
    inside = masks.to(maps.device)
    if inside.dtype != torch.bool and not bool(((inside == 0) | (inside == 1)).all()):
        raise ValueError("Masks must hold 0 and 1 (or False and True): compare with a threshold first.")
    return inside.bool()
