"""Exact Shapley values of a few players, and maps made of them: the truth that maps of patches are held against."""

from itertools import product
from math import factorial

import torch
from torch import Tensor
from torch.nn import functional as F


def coalitions(players: int) -> list[tuple[bool, ...]]:
    """All 2^P subsets, True for who is present, from nobody to everybody."""
    return list(product((False, True), repeat=players))


def shapley(worth: Tensor) -> Tensor:
    """What each player is worth: Shapley's mean over all orders in which the players can come.

    Args:
        worth: (2^P, ...), of each of `coalitions(P)`.

    Returns:
        (P, ...) float32; the sum is what everybody is worth together, less what nobody is.

    Source: Shapley, "A Value for n-Person Games", 1953.
    """
    players = len(worth).bit_length() - 1
    subsets = coalitions(players)
    place = {some: index for index, some in enumerate(subsets)}
    worth = worth.double()
    found = torch.zeros(players, *worth.shape[1:], dtype=torch.float64, device=worth.device)
    for some, index in place.items():
        others = sum(some) - 1
        for player in (player for player in range(players) if some[player]):
            without = place[(*some[:player], False, *some[player + 1 :])]
            weight = factorial(others) * factorial(players - others - 1) / factorial(players)
            found[player] += weight * (worth[index] - worth[without])
    return found.float()


def on_patches(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """(N, 1, H, W) as a map of so many patches shows it: the mean over each, and bilinear between them."""
    coarse = F.adaptive_avg_pool2d(maps, grid)
    return F.interpolate(coarse, size=maps.shape[-2:], mode="bilinear", align_corners=False)


def spread(worth: Tensor, regions: Tensor) -> Tensor:
    """(N, 1, H, W): what each region is worth (N, P), the same for all of its pixels (N, P, H, W), summing to it."""
    area = regions.float().sum(dim=(2, 3)).clamp_min(1)
    return ((worth / area)[:, :, None, None] * regions).sum(dim=1, keepdim=True)
