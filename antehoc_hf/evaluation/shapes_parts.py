"""Whether the network needs the parts that a map points out: on `shapes`, where a part can truly be removed.

The scene is drawn again without the part, and what lay behind it shows instead, so that no image is unnatural.
Source: Hesse, Schaub-Meyer, Roth, "FunnyBirds", ICCV 2023 (preservation check, deletion check, target sensitivity).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from antehoc_hf.evaluation.maps import check_maps
from antehoc_hf.evaluation.parts import part_importance
from antehoc_hf.shapes.parts import CLASSES, DECIDING
from antehoc_hf.shapes.scene import REGIONS, part_mask, render

Prepare = Callable[[list[Image.Image]], Tensor]
"""Images → pixel_values (B, 3, H, W), e.g. `lambda images: processor(images, return_tensors="pt").pixel_values`."""
Predict = Callable[[Tensor], Tensor]
"""pixel_values (N, 3, H, W) → probabilities (N, K)."""


def region_masks(part_masks: Sequence[object], regions: Sequence[str] = REGIONS) -> Tensor:
    """Masks of regions from the `part_masks` of rows of `shapes`.

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
    """The images of scenes, each drawn again without its own regions, with the true background in their place.

    Args:
        scenes: B texts of the `scene` column.
        without: for each the regions to remove, of `antehoc_hf.shapes.REGIONS`; none gives the image itself.
        prepare: see `Prepare`.

    Returns:
        `Tensor`: (B, 3, H, W), normalised.

    Raises:
        ValueError: if the numbers differ, a text is not a scene, or there is no such region.
    """
    pairs = list(zip(scenes, without, strict=False))
    if len(pairs) != len(scenes) or len(pairs) != len(without):
        raise ValueError(f"There are {len(scenes)} scenes and removals for {len(without)}: give one for each.")
    return prepare([Image.fromarray(np.asarray(render(scene, regions))) for scene, regions in pairs])


@torch.no_grad()
def removal_effects(
    predict: Predict, scenes: Sequence[str], target: Tensor, prepare: Prepare, regions: Sequence[str] = REGIONS
) -> Tensor:
    """What each region is worth to the network: `p(image) − p(image without the region)` of the target class.

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


@dataclass(frozen=True)
class Completeness:
    """Whether the parts that a map points out are enough, and needed.

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
    """Removes the parts a map points out, and all others, and looks whether the network's own prediction changes.

    Args:
        predict, scenes, prepare: see `removal_effects`.
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
    """For each image of `shapes` and each of DECIDING (horn, wings, tail) the one other class with the same variant.

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
    """Whether the map of a class lies on the parts that speak for this class.

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
