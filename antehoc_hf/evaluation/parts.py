"""How important a map calls the parts of an object, and whether that agrees with what the parts are worth to the
network.

Nothing is chosen by looking at the results: the area that counts is fixed beforehand and the same for every method.
Source: Hesse, Schaub-Meyer, Roth, "FunnyBirds: A Synthetic Vision Dataset for a Part-Based Analysis of Explainable AI
Methods", ICCV 2023 (single deletion); there the threshold of importance is picked for each method on the test images,
and constant maps are left out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from antehoc_hf.evaluation.maps import binarise_equal_area, check_maps
from antehoc_hf.evaluation.metric import Metric, given_scores, register_metric
from antehoc_hf.evaluation.rank_correlation import spearman


def part_importance(maps: Tensor, masks: Tensor, dilation: int = 2, over_area: bool = True) -> Tensor:
    """How important a map calls each part: its sum over the part's mask.

    Args:
        maps (`Tensor`): (B, 1, H, W), finite.
        masks (`Tensor`): (B, P, H, W) bool.
        dilation (`int`): pixels by which a mask is widened (square neighbourhood); the source takes 2, a 5 × 5.
        over_area (`bool`): divide by the widened mask's size, which makes a mean of it. As a plain sum, as in the
            source, large parts are important to any map, a constant one included.

    Returns:
        `Tensor`: (B, P) float32; NaN for a part that can't be seen.

    Raises:
        ValueError: if the shapes don't fit, the maps are not finite or the dilation is negative.
    """
    inside = check_parts(maps, masks)
    if dilation < 0:
        raise ValueError(f"dilation={dilation!r} must be a number of pixels, 0 or more.")
    wide = F.max_pool2d(inside.float(), 2 * dilation + 1, stride=1, padding=dilation)
    total = (maps.float() * wide).sum(dim=(2, 3))
    total = total / wide.sum(dim=(2, 3)) if over_area else total
    return torch.where(inside.flatten(2).any(dim=2), total, torch.nan)


@dataclass(frozen=True)
class ImportanceCorrelation:
    """How well the importance of parts agrees with what their removal does.

    Attributes:
        correlation (`Tensor`): (B,) in [−1, 1]; 0 where the map calls all parts equally important, which is no
            agreement; NaN where there is nothing to agree with: fewer than two parts in sight, or a network to which
            all are worth the same. The source's single deletion is `½ + ½ · correlation`.
        constant (`Tensor`): (B,) bool, where the map calls all parts equally important.
    """

    correlation: Tensor
    constant: Tensor


def importance_correlation(importance: Tensor, effects: Tensor, tolerance: float = 1e-5) -> ImportanceCorrelation:
    """Spearman's rank correlation, image by image, between the importance of parts and the effect of their removal.

    Args:
        importance (`Tensor`): (B, P), see `part_importance`; NaN for parts that can't be seen, which are left out.
        effects (`Tensor`): (B, P), see `removal_effects`.
        tolerance (`float`): importances that differ by less than this part of the largest, and effects that differ by
            less than this, are equal.

    Returns:
        `ImportanceCorrelation`.

    Raises:
        ValueError: if the shapes differ or effects are not finite.
    """
    if importance.ndim != 2 or importance.shape != effects.shape:
        raise ValueError(
            f"importance and effects must both be (B, P), but they are {tuple(importance.shape)} and "
            f"{tuple(effects.shape)}."
        )
    if not bool(torch.isfinite(effects).all()):
        raise ValueError("effects hold values that are not finite: count these images and leave them out.")
    effects = effects.to(importance.device).float()
    correlation = torch.full((len(importance),), torch.nan, device=importance.device)
    constant = torch.zeros(len(importance), dtype=torch.bool, device=importance.device)
    for row, (own, worth) in enumerate(zip(importance.float(), effects, strict=True)):
        seen = ~torch.isnan(own)
        own, worth = own[seen], worth[seen]
        if len(own) < 2:
            continue
        constant[row] = float(own.max() - own.min()) <= tolerance * float(own.abs().max())
        if float(worth.max() - worth.min()) > tolerance:
            agreement = spearman(own[None], _rounded(worth, tolerance)[None])[0]
            correlation[row] = 0.0 if constant[row] else agreement
    return ImportanceCorrelation(correlation, constant)


def important_parts(
    maps: Tensor, masks: Tensor, area: float = 0.2, coverage: float = 0.5, seed: int = 0, first_index: int = 0
) -> Tensor:
    """Which parts a map points out: those that lie, for at least `coverage` of their pixels, in its largest `area`.

    The area is the same for every map, so a map can neither call everything important nor, by being dim, nothing.

    Args:
        maps (`Tensor`): (B, 1, H, W), finite.
        masks (`Tensor`): (B, P, H, W) bool.
        area (`float`): part of the image, in (0, 1).
        coverage (`float`): in (0, 1].
        seed, first_index (`int`): of the order among equal values, see `rank_pixels`.

    Returns:
        `Tensor`: (B, P) bool; False for parts that can't be seen.

    Raises:
        ValueError: if the shapes don't fit, the maps are not finite or an option makes no sense.
    """
    inside = check_parts(maps, masks)
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage={coverage!r} must be above 0 and at most 1: it is a part of a mask.")
    kept = binarise_equal_area(maps, area, seed, first_index) > 0
    size = inside.sum(dim=(2, 3))
    return (size > 0) & ((kept & inside).sum(dim=(2, 3)) >= coverage * size)


def _rounded(values: Tensor, tolerance: float) -> Tensor:
    """Values that differ by rounding made equal: effects of parts the network does not see."""
    return (values / tolerance).round() if tolerance > 0 else values


def check_parts(maps: Tensor, masks: Tensor) -> Tensor:
    """The masks on the device of the maps; ValueError if they do not fit."""
    check_maps(maps)
    if masks.ndim != 4 or masks.shape[0] != maps.shape[0] or masks.shape[2:] != maps.shape[2:]:
        raise ValueError(
            f"Maps (B, 1, H, W) and masks (B, P, H, W) don't fit: they are {tuple(maps.shape)} and "
            f"{tuple(masks.shape)}."
        )
    if masks.dtype != torch.bool:
        raise ValueError(f"masks must be bool, but they are {masks.dtype}: see region_masks.")
    return masks.to(maps.device)


_CORRELATION, _CONTRAST = "`importance_correlation(…).correlation`; 0 is chance.", "`target_contrast(…)`; ½ is chance."
register_metric(
    Metric("importance_correlation", given_scores, "importance of parts", "higher", _CORRELATION),
    Metric("preserved", given_scores, "preserved", "higher", "`part_completeness(…).preserved`."),
    Metric("destroyed", given_scores, "destroyed", "higher", "`part_completeness(…).destroyed`."),
    Metric("target_contrast", given_scores, "target contrast", "higher", _CONTRAST),
)
