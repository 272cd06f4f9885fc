"""What every measure does to a map first: check it, rank its pixels with seeded ties, cut it to a mask."""

import torch
from torch import Tensor

# A map whose values differ by less than this part of its largest value shows nothing.
_FLAT = 1e-5


def check_maps(maps: Tensor, name: str = "maps") -> Tensor:
    """Returns `maps` if they are (B, 1, H, W) and finite.

    Raises:
        ValueError: if the shape is another one, or if a value is not finite (a comparison with NaN is false, so such
            a map would silently be scored as if it had lost nothing).
    """
    if maps.ndim != 4 or maps.shape[1] != 1:
        raise ValueError(f"{name} must have the shape (B, 1, H, W), but theirs is {tuple(maps.shape)}.")
    broken = int((~torch.isfinite(maps)).flatten(1).any(dim=1).sum())
    if broken:
        raise ValueError(
            f"{broken} of {len(maps)} {name} hold values that are not finite: count and replace them first "
            "(torch.nan_to_num), so that the report can say so."
        )
    return maps


def measurable_maps(maps: Tensor, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
    """Maps as they are and as they are measured, on the images' device.

    Args:
        maps (`Tensor`): (B, 1, H, W), whatever an explainer gave.
        pixel_values (`Tensor`): (B, 3, H, W).

    Returns:
        `tuple[Tensor, Tensor]`: float32 as given; and finite, in [0, 1]: what is not finite is 0.

    Raises:
        ValueError: if the shapes don't fit.
    """
    if maps.shape != (len(pixel_values), 1, *pixel_values.shape[-2:]):
        raise ValueError(
            f"Maps of images {tuple(pixel_values.shape)} must be (B, 1, H, W), but they are {tuple(maps.shape)}."
        )
    raw = maps.to(pixel_values.device).float()
    return raw, torch.nan_to_num(raw, nan=0.0, posinf=0.0, neginf=0.0).clamp(0, 1)


def degenerate_maps(maps: Tensor) -> Tensor:
    """Which maps show nothing: constant, or not finite somewhere.

    Args:
        maps (`Tensor`): (B, 1, H, W).

    Returns:
        `Tensor`: (B,) bool.
    """
    flat = maps.flatten(1).float()
    low, high = flat.amin(dim=1), flat.amax(dim=1)
    shows_something = (high - low > _FLAT * torch.maximum(high.abs(), low.abs())) & torch.isfinite(high - low)
    return ~shows_something


def minmax_maps(maps: Tensor) -> Tensor:
    """Each map stretched to [0, 1] by itself; a constant map becomes zero, as there is nothing in it to show.

    Args:
        maps (`Tensor`): (B, 1, H, W), finite.

    Returns:
        `Tensor`: (B, 1, H, W) float32.
    """
    maps = maps.float()
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    flat = degenerate_maps(maps)[:, None, None, None]
    return torch.where(flat, torch.zeros_like(maps), (maps - low) / torch.where(flat, 1.0, high - low))


def image_seeds(count: int, seed: int, first_index: int) -> list[int]:
    """A seed for each image, from the seed and the image's place in its data set: no matter how it is batched."""
    return [(seed * 1_000_003 + first_index + offset) % 2**63 for offset in range(count)]


def rank_pixels(maps: Tensor, seed: int = 0, first_index: int = 0) -> Tensor:
    """The rank of each pixel, 0 for the largest value. Equal values are put in a random order drawn from the seed.

    Without random ties a constant map would be ranked from the top left corner, which is a map of its own.

    Args:
        maps (`Tensor`): (B, 1, H, W), finite.
        seed (`int`): of the ties.
        first_index (`int`): index of the first map in its data set, so that ties don't depend on the batches.

    Returns:
        `Tensor`: (B, H·W) int64, a permutation of 0 … H·W − 1 in each row.

    Raises:
        ValueError: for maps of another shape or not finite.
    """
    values = check_maps(maps).flatten(1)
    shuffle = torch.empty(values.shape, dtype=torch.long)
    for row, image_seed in zip(shuffle, image_seeds(len(values), seed, first_index), strict=True):
        torch.randperm(len(row), generator=torch.Generator().manual_seed(image_seed), out=row)
    shuffle = shuffle.to(values.device)
    by_value = values.gather(1, shuffle).argsort(dim=1, descending=True, stable=True)
    order = shuffle.gather(1, by_value)
    places = torch.arange(values.shape[1], device=values.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def binarise(maps: Tensor, threshold: float = 0.8) -> Tensor:
    """1 where the map, stretched to [0, 1], is at least `threshold`, else 0 (Sec. 4 of the ante-hoc paper; the paper
    thresholds the energy map, read here as: threshold the map, then multiply the image).

    Args:
        maps (`Tensor`): (B, 1, H, W), finite.
        threshold (`float`): in (0, 1].

    Returns:
        `Tensor`: (B, 1, H, W) float32 of zeros and ones; all zero for a constant map.

    Raises:
        ValueError: for a threshold outside (0, 1], or maps of another shape or not finite.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold!r} must be above 0 and at most 1: maps are stretched to [0, 1] first.")
    return (minmax_maps(check_maps(maps)) >= threshold).float()


def binarise_equal_area(maps: Tensor, area: float = 0.2, seed: int = 0, first_index: int = 0) -> Tensor:
    """1 on the `area · H · W` pixels with the largest values, else 0: the same area for every method and image.

    Only the order of the pixels counts, so brightness buys nothing, and any increasing transform of the map gives the
    same mask. This is the quantile reading, `quantile = 1 − area`, of the paper's threshold of 0.8.

    Args:
        maps (`Tensor`): (B, 1, H, W), finite.
        area (`float`): kept part of the image, in (0, 1).
        seed, first_index (`int`): of the ties, see `rank_pixels`.

    Returns:
        `Tensor`: (B, 1, H, W) float32 of zeros and ones; a random mask for a constant map.

    Raises:
        ValueError: for an area outside (0, 1), or maps of another shape or not finite.
    """
    if not 0 < area < 1:
        raise ValueError(f"area={area!r} must be between 0 and 1: it is the part of the image that is kept.")
    ranks = rank_pixels(maps, seed, first_index)
    return (ranks < round(area * ranks.shape[1])).view_as(maps).float()
