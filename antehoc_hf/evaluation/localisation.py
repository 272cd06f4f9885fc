"""Whether the map lies on the object, where a mask of the object is known.

A network may rightly look at something else than the object, so these measure agreement with the mask; on synthetic
images, where nothing but the object carries the class, they measure the explanation.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from antehoc_hf.evaluation.maps import binarise, check_maps, rank_pixels
from antehoc_hf.evaluation.metric import Metric, register_metric


def energy_share(maps: Tensor, masks: Tensor) -> Tensor:
    """Part of the map's sum that lies inside the mask: the energy-based pointing game (Wang et al., "Score-CAM", CVPR
    workshops 2020, Sec. 4.3).

    It is also known as relevance mass accuracy (Arras, Osman, Samek, "CLEVR-XAI", Information Fusion 2022).

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
    """`energy_share` divided by the mask's share of the image: 1 is chance, the score of any constant map.

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
    """1 where the map's largest value lies inside the mask (Zhang et al., "Top-down Neural Attention by Excitation
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


def relevance_rank(maps: Tensor, masks: Tensor, seed: int = 0, first_index: int = 0) -> Tensor:
    """Relevance rank accuracy: of the K pixels with the largest values the part inside the mask, K being the mask's
    size (Arras, Osman, Samek, "CLEVR-XAI", Information Fusion 2022).

    Among equal values a random order is drawn, so that a constant map scores the mask's area.

    Args:
        maps (`Tensor`): (B, 1, H, W), finite.
        masks (`Tensor`): (B, 1, H, W), bool or 0/1.
        seed, first_index (`int`): of the order among equal values, see `rank_pixels`.

    Returns:
        `Tensor`: (B,) float32 in [0, 1]; NaN where the mask is empty.

    Raises:
        ValueError: if the shapes differ, the maps are not finite or the masks hold other values.
    """
    inside = _check(maps, masks).flatten(1)
    size = inside.sum(dim=1)
    found = (_largest(maps, size, seed, first_index) & inside).sum(dim=1)
    return torch.where(size > 0, found / size, torch.nan)


def iou(maps: Tensor, masks: Tensor, threshold: float | None = None, seed: int = 0, first_index: int = 0) -> Tensor:
    """Intersection over union of the mask and the binarised map.

    Args:
        maps (`Tensor`): (B, 1, H, W), finite.
        masks (`Tensor`): (B, 1, H, W), bool or 0/1.
        threshold (`float`, *optional*): None keeps as many of the largest values as the mask has pixels, so that only
            the order counts (then it is `r / (2 − r)` of the relevance rank accuracy r). A number in (0, 1] keeps what
            is at least that, after the map is stretched to [0, 1] (see `binarise`).
        seed, first_index (`int`): of the order among equal values, see `rank_pixels`; only without a threshold.

    Returns:
        `Tensor`: (B,) float32 in [0, 1]; NaN where the mask is empty.

    Raises:
        ValueError: if the shapes differ, the maps are not finite, the masks hold other values or the threshold is
            outside (0, 1].
    """
    inside = _check(maps, masks).flatten(1)
    size = inside.sum(dim=1)
    if threshold is None:
        kept = _largest(maps, size, seed, first_index)
    else:
        kept = binarise(maps, threshold).flatten(1) > 0
    union = (kept | inside).sum(dim=1)
    return torch.where(size > 0, (kept & inside).sum(dim=1) / union, torch.nan)


def _largest(maps: Tensor, count: Tensor, seed: int, first_index: int) -> Tensor:
    """The `count` (B,) pixels of each map with the largest values, (B, H·W) bool."""
    return rank_pixels(maps, seed, first_index) < count[:, None]


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


_OVER_AREA = "Part of the map's sum inside the mask over the mask's share of the image; 1 is chance."
_POINTING = "Share of maps whose largest value is in the mask; the mask's area is chance."
_RANK = "Part of the K largest values in the mask of K pixels; the mask's area is chance."
_IOU = "Intersection over union of mask and binarised map, in [0, 1]."
register_metric(
    Metric(
        "energy_share", energy_share, "energy share", "higher", "Part of the map's sum inside the mask.", columns=()
    ),
    Metric("energy_share_over_area", energy_share_over_area, "energy share / area", "higher", _OVER_AREA),
    Metric("pointing_game", pointing_game, "pointing game", "higher", _POINTING, scale=100.0, decimals=1),
    Metric("relevance_rank", relevance_rank, "relevance rank", "higher", _RANK),
    Metric("iou", iou, "IoU", "higher", _IOU, reported=False),
)
