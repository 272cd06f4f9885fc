"""Coalitions of patches: how they are drawn, and the images in which only their patches are left."""

from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from antehoc_hf.evaluation.blur import blurred

Sampling = Literal["contiguous", "ranked", "shapley"]
Background = Literal["mixed", "mean", "blur", "black"]

_BACKGROUNDS: tuple[Background, ...] = ("mean", "blur", "black")
# How far "ranked" coalitions stray: the random field's standard deviation over the ranking's.
_NOISE = 0.5


def kernel_sizes(patches: int) -> Tensor:
    """How often a coalition of 1 … d − 1 of d patches is drawn by the Shapley kernel.

    The kernel weighs a coalition of s patches by (d − 1) / (C(d, s) · s · (d − s)), and there are C(d, s) of them:
    together they weigh 1 / (s · (d − s)), up to a factor.

    Args:
        patches (`int`): d, at least 2.

    Returns:
        `Tensor`: (d − 1,), summing to 1.
    """
    sizes = torch.arange(1, patches, dtype=torch.float64)
    weights = 1 / (sizes * (patches - sizes))
    return weights / weights.sum()


def draw_sizes(count: int, patches: int, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """How many of d patches `count` coalitions have.

    Args:
        count (`int`): how many.
        patches (`int`): d, at least 2.
        sampling (`str`): `"shapley"`: by the Shapley kernel; otherwise every size is as likely.
        generator (`torch.Generator`): on the CPU.

    Returns:
        `Tensor`: (count,), from 1 to d − 1.
    """
    if sampling == "shapley":
        return torch.multinomial(kernel_sizes(patches), count, replacement=True, generator=generator) + 1
    return torch.randint(1, patches, (count,), generator=generator)


def draw_coalitions(
    sizes: Tensor, grid: tuple[int, int], sampling: Sampling, generator: torch.Generator, ranking: Tensor | None = None
) -> Tensor:
    """Random coalitions of patches.

    Args:
        sizes (`Tensor`): (N,), how many patches each has.
        grid (`tuple[int, int]`): rows and columns of patches.
        sampling (`str`): `"shapley"`: patches independent of each other. `"contiguous"`: neighbours tend to go
            together (the top of a smooth random field), as what is left of a real image does. `"ranked"`: the patches
            that a ranking puts first, give or take such a field.
        generator (`torch.Generator`): on the CPU.
        ranking (`Tensor`, *optional*): (N, g, w), for `"ranked"`.

    Returns:
        `Tensor`: (N, g, w) bool.
    """
    rows, columns = grid
    height = torch.rand(len(sizes), 1, rows, columns, generator=generator)
    if sampling != "shapley":
        coarse = torch.rand(len(sizes), 1, -(-rows // 2), -(-columns // 2), generator=generator)
        # What is left of the fine field settles ties alone.
        height = F.interpolate(coarse, size=grid, mode="bicubic", align_corners=False) + 1e-4 * height
    if sampling == "ranked":
        assert ranking is not None
        # Uniform numbers have a standard deviation of 1/√12. The lowest are taken: the ranking counts downwards.
        height = _NOISE * 12**0.5 * height - _standardised(ranking.float().cpu()).view_as(height)
    rank = height.flatten(1).argsort(dim=1).argsort(dim=1)
    return (rank < sizes[:, None]).view(len(sizes), rows, columns)


def _standardised(values: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 for each of (N, g, w); constant ones become 0."""
    spread, mean = torch.std_mean(values, dim=(1, 2), keepdim=True)
    return (values - mean) / spread.clamp_min(1e-12)


def background_images(pixel_values: Tensor, kind: str, black: Tensor) -> Tensor:
    """What stands where a patch is taken out.

    Args:
        pixel_values (`Tensor`): (B, 3, H, W), normalised.
        kind (`str`): `"mean"`, the image's mean colour; `"blur"`, the image after a Gaussian of 1/16 of its shorter
            side; `"black"`.
        black (`Tensor`): (1, 3, 1, 1), black after the normalisation.

    Returns:
        `Tensor`: (B, 3, H, W).
    """
    if kind == "mean":
        return pixel_values.mean(dim=(2, 3), keepdim=True).expand_as(pixel_values)
    if kind == "black":
        return black.to(pixel_values).expand_as(pixel_values)
    return blurred(pixel_values)


class Normalization(Protocol):
    """How pixels in [0, 1] are normalised, as a model's configuration says it."""

    image_mean: list[float]
    image_std: list[float]


def black_of(config: Normalization) -> Tensor:
    """Black after the normalisation of a model's configuration, (1, 3, 1, 1)."""
    mean, std = torch.tensor(config.image_mean), torch.tensor(config.image_std)
    return (-mean / std).view(1, 3, 1, 1)


def shown_images(pixel_values: Tensor, coalitions: Tensor, background: Tensor) -> Tensor:
    """The images (B, 3, H, W) where only the patches of the coalitions (B, g, w) are shown."""
    rows, columns = (
        torch.arange(size, device=coalitions.device) * patches // size
        for size, patches in zip(pixel_values.shape[-2:], coalitions.shape[-2:], strict=True)
    )
    mask = coalitions[:, rows[:, None], columns[None, :]]
    return torch.where(mask[:, None], pixel_values, background)


def draw_partial_images(
    pixel_values: Tensor,
    grid: tuple[int, int],
    sampling: Sampling,
    kind: Background,
    black: Tensor,
    generator: torch.Generator,
    count: int = 1,
    ranking: Tensor | None = None,
) -> tuple[list[Tensor], Tensor]:
    """Coalitions of each image's patches, and what stands where the others are missing.

    Args:
        pixel_values (`Tensor`): (B, 3, H, W), normalised.
        grid (`tuple[int, int]`): rows and columns of patches.
        sampling (`str`): see [`draw_coalitions`]; `"ranked"` without a ranking is `"contiguous"`.
        kind (`str`): see [`background_images`]; `"mixed"`: one of the three for each image.
        black (`Tensor`): (1, 3, 1, 1), black after the normalisation.
        generator (`torch.Generator`): on the CPU.
        count (`int`): how many coalitions of each image, all of one size and on one background.
        ranking (`Tensor`, *optional*): (B, g, w), for `"ranked"`.

    Returns:
        `count` coalitions (B, g, w) bool, and the background (B, 3, H, W).
    """
    sampling = "contiguous" if sampling == "ranked" and ranking is None else sampling
    background = _drawn_background(pixel_values, kind, black, generator)
    sizes = draw_sizes(len(pixel_values), grid[0] * grid[1], sampling, generator)
    drawn = [draw_coalitions(sizes, grid, sampling, generator, ranking) for _ in range(count)]
    return [coalition.to(pixel_values.device) for coalition in drawn], background


def _drawn_background(pixel_values: Tensor, kind: Background, black: Tensor, generator: torch.Generator) -> Tensor:
    if kind != "mixed":
        return background_images(pixel_values, kind, black)
    kinds = torch.randint(len(_BACKGROUNDS), (len(pixel_values), 1, 1, 1), generator=generator)
    kinds = kinds.to(pixel_values.device)
    images = torch.zeros_like(pixel_values)
    for index, one in enumerate(_BACKGROUNDS):
        images = torch.where(kinds == index, background_images(pixel_values, one, black), images)
    return images
