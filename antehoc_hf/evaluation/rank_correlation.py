"""Spearman's rank correlation of rows, with average ranks for equal values."""

import torch
from torch import Tensor


def average_ranks(values: Tensor) -> Tensor:
    """Ranks from 0, upwards; equal values share the mean of their ranks.

    Args:
        values (`Tensor`): (B, N), no NaN.

    Returns:
        `Tensor`: (B, N) float64 (float32 on devices that have no float64).
    """
    ordered, order = values.sort(dim=1)
    fresh = torch.ones_like(order)
    fresh[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).long()
    group = fresh.cumsum(dim=1) - 1
    size = torch.zeros_like(order).scatter_add_(1, group, torch.ones_like(order))
    dtype = torch.float32 if values.device.type == "mps" else torch.float64
    middle = (size.cumsum(dim=1) - 1).to(dtype) - (size - 1).to(dtype) / 2
    return torch.empty_like(ordered, dtype=dtype).scatter_(1, order, middle.gather(1, group))


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation of each row of `first` with that of `second`: Pearson's correlation of average
    ranks.

    Args:
        first, second (`Tensor`): (B, N), no NaN.

    Returns:
        `Tensor`: (B,) float32 in [−1, 1]; NaN where all values of a row are equal.
    """
    first, second = average_ranks(first), average_ranks(second)
    first, second = first - first.mean(dim=1, keepdim=True), second - second.mean(dim=1, keepdim=True)
    length = first.norm(dim=1) * second.norm(dim=1)
    cosine = (first * second).sum(dim=1) / torch.where(length > 0, length, torch.nan)
    return cosine.clamp(-1, 1).float()
