"""
Whether the parts a map calls important are those the network needs: on `shapes`, where a part can truly be removed.

The scene is drawn again without the part, and what lay behind it shows instead, so that no image is unnatural. Nothing
is chosen by looking at the results: the area that counts is fixed beforehand and the same for every method.
Source: Hesse, Schaub-Meyer, Roth, "FunnyBirds: A Synthetic Vision Dataset for a Part-Based Analysis of Explainable AI
Methods", ICCV 2023 (single deletion, preservation check, deletion check, target sensitivity); there the
threshold of importance is picked for each method on the test images, and constant maps are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from antehoc_hf.evaluation.maps import binarise_equal_area, check_maps
from antehoc_hf.evaluation.rank_correlation import spearman
from antehoc_hf.shapes import CLASSES, DECIDING, REGIONS, part_mask, render

Prepare = Callable[[list[Image.Image]], Tensor]
"""Images → pixel_values (B, 3, H, W), e.g. `lambda images: processor(images, return_tensors="pt").pixel_values`."""
Predict = Callable[[Tensor], Tensor]
"""pixel_values (N, 3, H, W) → probabilities (N, K)."""


def region_masks(part_masks: Sequence[Any], regions: Sequence[str] = REGIONS) -> Tensor:
    """
    Masks of regions from the `part_masks` of rows of `shapes`.

    Args:
        part_masks: B of them, as in the column: PIL images or uint8 arrays (H, W).
        regions: P names for `antehoc_hf.shapes.part_mask`.

    Returns:
        `Tensor`: (B, P, H, W) bool.

    Raises:
        ValueError: for an unknown region.
    """
    return torch.stack(
        [torch.stack([torch.from_numpy(part_mask(row, region)) for region in regions]) for row in part_masks]
    )


def images_without(scenes: Sequence[str], without: Sequence[Collection[str]], prepare: Prepare) -> Tensor:
    """
    The images of scenes, each drawn again without its own regions, with the true background in their place.

    Args:
        scenes: B texts of the `scene` column.
        without: for each the regions to remove, of `antehoc_hf.shapes.REGIONS`; none gives the image itself.
        prepare: see `Prepare`.

    Returns:
        `Tensor`: (B, 3, H, W), normalised.

    Raises:
        ValueError: if the numbers differ, a text is no scene, or there is no such region.
    """
    pairs = list(zip(scenes, without, strict=False))
    if len(pairs) != len(scenes) or len(pairs) != len(without):
        raise ValueError(f"There are {len(scenes)} scenes and removals for {len(without)}: give one for each.")
    return prepare([Image.fromarray(np.asarray(render(scene, regions))) for scene, regions in pairs])


@torch.no_grad()
def removal_effects(
    predict: Predict, scenes: Sequence[str], target: Tensor, prepare: Prepare, regions: Sequence[str] = REGIONS
) -> Tensor:
    """
    What each region is worth to the network: `p(image) − p(image without the region)` of the target class.

    Args:
        predict, prepare: see `Predict`, `Prepare`.
        scenes: B texts of the `scene` column.
        target (`Tensor`): (B,) int64.
        regions: P names of `antehoc_hf.shapes.REGIONS`.

    Returns:
        `Tensor`: (B, P) float32 in [−1, 1], on the device of the predictions. It knows no map: measure it once.

    Raises:
        ValueError: see `images_without`.
    """

    def probability(without: Collection[str]) -> Tensor:
        probabilities = predict(images_without(scenes, [without] * len(scenes), prepare)).float()
        return probabilities.gather(1, target.to(probabilities.device)[:, None]).squeeze(1)

    whole = probability(())
    return torch.stack([whole - probability((region,)) for region in regions], dim=1)


def part_importance(maps: Tensor, masks: Tensor, dilation: int = 2, over_area: bool = True) -> Tensor:
    """
    How important a map calls each part: its sum over the part's mask.

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
    inside = _check(maps, masks)
    if dilation < 0:
        raise ValueError(f"dilation={dilation!r} must be a number of pixels, 0 or more.")
    wide = F.max_pool2d(inside.float(), 2 * dilation + 1, stride=1, padding=dilation)
    total = (maps.float() * wide).sum(dim=(2, 3))
    total = total / wide.sum(dim=(2, 3)) if over_area else total
    return torch.where(inside.flatten(2).any(dim=2), total, torch.nan)


@dataclass(frozen=True)
class ImportanceCorrelation:
    """
    How well the importance of parts agrees with what their removal does.

    Attributes:
        correlation (`Tensor`): (B,) in [−1, 1]; 0 where the map calls all parts equally important, which is no
            agreement; NaN where there is nothing to agree with: fewer than two parts in sight, or a network to which
            all are worth the same. The source's single deletion is `½ + ½ · correlation`.
        constant (`Tensor`): (B,) bool, where the map calls all parts equally important.
    """

    correlation: Tensor
    constant: Tensor


def importance_correlation(importance: Tensor, effects: Tensor, tolerance: float = 1e-5) -> ImportanceCorrelation:
    """
    Spearman's rank correlation, image by image, between the importance of parts and the effect of their removal.

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
    """
    Which parts a map points out: those that lie, for at least `coverage` of their pixels, in its largest `area`.

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
    inside = _check(maps, masks)
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage={coverage!r} must be above 0 and at most 1: it is a part of a mask.")
    kept = binarise_equal_area(maps, area, seed, first_index) > 0
    size = inside.sum(dim=(2, 3))
    return (size > 0) & ((kept & inside).sum(dim=(2, 3)) >= coverage * size)


@dataclass(frozen=True)
class Completeness:
    """
    Whether the parts that a map points out are enough, and needed.

    Attributes:
        preserved (`Tensor`): (B,) float32, 1 where the prediction stays when all other parts are removed (the source's
            preservation check).
        destroyed (`Tensor`): (B,) float32, 1 where it changes when the parts pointed out are removed (deletion check).
    """

    preserved: Tensor
    destroyed: Tensor


@torch.no_grad()
def part_completeness(
    predict: Predict, scenes: Sequence[str], important: Tensor, prepare: Prepare, regions: Sequence[str] = REGIONS
) -> Completeness:
    """
    Removes the parts a map points out, and all others, and looks whether the network's own prediction changes.

    Args:
        predict, prepare: see `Predict`, `Prepare`.
        scenes: B texts of the `scene` column.
        important (`Tensor`): (B, P) bool, see `important_parts`.
        regions: P names of `antehoc_hf.shapes.REGIONS`, what `important` is about. The others are never removed.

    Returns:
        `Completeness`: a map that points out nothing destroys nothing; one that points out everything preserves all
            and destroys all, which the fixed area prevents.

    Raises:
        ValueError: if `important` is not (B, P); see `images_without`.
    """
    if important.shape != (len(scenes), len(regions)) or important.dtype != torch.bool:
        raise ValueError(
            f"important must be ({len(scenes)}, {len(regions)}) of bool, one row a scene and one column a region, but "
            f"it is {tuple(important.shape)} of {important.dtype}."
        )
    table = [dict(zip(regions, row, strict=True)) for row in important.tolist()]

    def predicted(without: list[list[str]]) -> Tensor:
        return predict(images_without(scenes, without, prepare)).argmax(dim=1)

    whole = predicted([[] for _ in scenes])
    others = predicted([[region for region, chosen in row.items() if not chosen] for row in table])
    chosen = predicted([[region for region, chosen in row.items() if chosen] for row in table])
    return Completeness((others == whole).float(), (chosen != whole).float())


def sharing_classes(labels: Tensor) -> Tensor:
    """
    For each image of `shapes` and each of DECIDING (horn, wings, tail) the one other class with the same variant.

    Args:
        labels (`Tensor`): (B,) int64.

    Returns:
        `Tensor`: (B, 3) int64; the three differ.
    """
    table = list(CLASSES.values())
    others = [
        [next(k for k, row in enumerate(table) if k != own and row[part] == table[own][part]) for part in range(3)]
        for own in range(len(table))
    ]
    return torch.tensor(others, device=labels.device)[labels]


def target_contrast(
    explain: Callable[[Tensor, Tensor], Tensor], pixel_values: Tensor, masks: Tensor, labels: Tensor, dilation: int = 2
) -> Tensor:
    """
    Whether the map of a class lies on the parts that speak for this class.

    Each deciding part of an image also belongs to one other class. Of two such classes, each one's map should give its
    own part a larger share than the other's map does. (The source's target sensitivity, on the classes of `shapes`.)

    Args:
        explain: `(pixel_values, target) -> maps` (B, 1, H, W), not negative.
        pixel_values (`Tensor`): (B, 3, H, W).
        masks (`Tensor`): (B, 3, H, W) bool, of DECIDING: `region_masks(part_masks, DECIDING)`.
        labels (`Tensor`): (B,) int64.
        dilation (`int`): see `part_importance`.

    Returns:
        `Tensor`: (B,) float32 in [0, 1], share of the comparisons that hold: ½ is chance, and 0 the score, by design,
            of maps that depend on no class. NaN where fewer than two of the parts can be seen.

    Raises:
        ValueError: if shapes don't fit, or maps are negative or not finite.
    """
    count = len(DECIDING)
    if masks.ndim != 4 or masks.shape[1] != count:
        raise ValueError(f"masks must be (B, {count}, H, W), of {', '.join(DECIDING)}, but are {tuple(masks.shape)}.")
    classes = sharing_classes(labels)
    shares = []  # of the map of each class
    for place in range(count):
        maps = check_maps(explain(pixel_values, classes[:, place])).float()
        if maps.numel() and float(maps.min()) < 0:
            raise ValueError(f"target_contrast needs maps without negative values; the least is {float(maps.min())}.")
        whole = maps.sum(dim=(1, 2, 3), keepdim=True)
        shares.append(part_importance(maps / torch.where(whole > 0, whole, 1.0), masks, dilation, over_area=False))
    share = torch.stack(shares, dim=1)  # (B, class, part)
    own = share.diagonal(dim1=1, dim2=2)  # (B, part): under the class that the part speaks for
    visible = ~torch.isnan(own)
    # Entry (other class, part): the part's own class gives it more than the other class does.
    larger = own[:, None, :] > share * (1 + 1e-5)
    compared = visible[:, None, :] & visible[:, :, None] & ~torch.eye(count, dtype=torch.bool, device=own.device)
    pairs = compared.sum(dim=(1, 2))
    return torch.where(pairs > 0, (larger & compared).sum(dim=(1, 2)) / pairs, torch.nan)


def _rounded(values: Tensor, tolerance: float) -> Tensor:
    """Values that differ by rounding made equal: effects of parts the network does not see."""
    return (values / tolerance).round() if tolerance > 0 else values


def _check(maps: Tensor, masks: Tensor) -> Tensor:
    """The masks on the device of the maps."""
    check_maps(maps)
    if masks.ndim != 4 or masks.shape[0] != maps.shape[0] or masks.shape[2:] != maps.shape[2:]:
        raise ValueError(
            f"Maps (B, 1, H, W) and masks (B, P, H, W) don't fit: they are {tuple(maps.shape)} and "
            f"{tuple(masks.shape)}."
        )
    if masks.dtype != torch.bool:
        raise ValueError(f"masks must be bool, but they are {masks.dtype}: see region_masks.")
    return masks.to(maps.device)
