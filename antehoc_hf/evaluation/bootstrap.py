"""How sure a mean is: the percentile bootstrap, seeded."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Indices drawn at a time: bounds the memory (8 bytes each).
_DRAWS = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """A mean with its bootstrap interval.

    Attributes:
        value (`float`): the mean; NaN if there was nothing to average.
        low, high (`float`): ends of the interval.
        count (`int`): how many values were averaged.
    """

    value: float
    low: float
    high: float
    count: int

    def to_dict(self) -> dict[str, float | int | None]:
        """For JSON: NaN, which JSON doesn't know, becomes None."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {**{key: None if math.isnan(x) else x for key, x in numbers.items()}, "count": self.count}


def bootstrap_mean(values: Tensor, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Mean of `values` with its percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13).

    Args:
        values (`Tensor`): (N,), one for each image.
        level (`float`): of the interval, in (0, 1).
        resamples (`int`): how often N values are drawn with replacement.
        seed (`int`): of the draws.

    Returns:
        `Estimate`: NaN everywhere for no values; for one value, or equal values, an interval of no width.

    Raises:
        ValueError: for values that are not finite or not (N,), a level outside (0, 1) or fewer than 1 resamples.
    """
    if values.ndim != 1:
        raise ValueError(f"values must be (N,), but their shape is {tuple(values.shape)}.")
    return bootstrap_means(
        values[:, None], torch.ones_like(values[:, None], dtype=torch.bool), level, resamples, seed
    )[0]


def bootstrap_means(
    values: Tensor, included: Tensor, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> list[Estimate]:
    """Means of several measures of the same N images, with intervals from the same draws of images.

    A measure may be a mean over some of the images only (those that lost probability, say). The images are resampled
    then, not the terms, so that the uncertain number of terms is part of the interval.

    Args:
        values (`Tensor`): (N, M).
        included (`Tensor`): (N, M) bool: which values belong to the mean. The others may be anything, also NaN.
        level, resamples, seed: see `bootstrap_mean`.

    Returns:
        `list[Estimate]`: M of them. A draw that holds no included value has no mean and is left out of the interval.

    Raises:
        ValueError: for included values that are not finite, or options that make no sense.
    """
    if values.ndim != 2 or values.shape != included.shape:
        raise ValueError(
            f"values and included must both be (N, M), but they are {tuple(values.shape)} and {tuple(included.shape)}."
        )
    if not 0 < level < 1:
        raise ValueError(f"level={level!r} must be between 0 and 1, e.g. 0.95.")
    if resamples < 1:
        raise ValueError(f"resamples={resamples!r} must be at least 1.")
    # float64 on the CPU: sums of many values, and the same draws wherever the values were made.
    values, included = values.detach().cpu().double(), included.cpu()
    broken = int((~torch.isfinite(values) & included).sum())
    if broken:
        raise ValueError(f"{broken} of {int(included.sum())} values are not finite: count them and leave them out.")
    values = torch.where(included, values, 0.0)
    means = _weighted_means(values, included, torch.ones(1, len(values), dtype=torch.float64)).squeeze(0)
    draws = _drawn_means(values, included, resamples, seed)
    low, high = torch.nanquantile(draws, _tails(level), dim=0)
    counts = included.sum(dim=0)
    table = zip(means.tolist(), low.tolist(), high.tolist(), counts.tolist(), strict=True)
    return [Estimate(*row) for row in table]


def paired_difference(
    first: Tensor, second: Tensor, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Mean of `first − second` over the images on which both are defined, with its interval.

    Two methods seen on the same images are compared image by image: the interval is that of the difference, much
    narrower than two intervals side by side suggest. If it holds 0, the images don't tell the two apart.

    Args:
        first, second (`Tensor`): (N,), one value for each image in the same order; NaN where a metric is undefined.
        level, resamples, seed: see `bootstrap_mean`.

    Returns:
        `Estimate`: its `count` is the number of pairs; `N − count` were left out because one of the two was NaN.

    Raises:
        ValueError: if the shapes differ or a value is infinite, or options make no sense.
    """
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            f"Both must be (N,), one value for each image, but they are {tuple(first.shape)} and "
            f"{tuple(second.shape)}."
        )
    difference = first.detach().cpu().double() - second.detach().cpu().double()
    included = ~(torch.isnan(first).cpu() | torch.isnan(second).cpu())
    return bootstrap_means(difference[:, None], included[:, None], level, resamples, seed)[0]


def mean_change(
    values: Tensor, included: Tensor, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Size of the difference of two means over the same N images, `|mean(second column) − mean(first column)|`.

    Each column may leave out images of its own, as the paper's Drop does; the images are resampled, not the terms. The
    interval is that of the signed difference without its sign, so it begins at 0 where there may be no change. (The
    percentiles of sizes would never reach 0.)

    Args:
        values (`Tensor`): (N, 2).
        included (`Tensor`): (N, 2) bool: which values belong to the mean.
        level, resamples, seed: see `bootstrap_mean`.

    Returns:
        `Estimate`: its `count` is the smaller one of the two columns.

    Raises:
        ValueError: see `bootstrap_means`.
    """
    if values.ndim != 2 or values.shape[1] != 2:
        raise ValueError(f"values must be (N, 2), but their shape is {tuple(values.shape)}.")
    first, second = bootstrap_means(values, included, level, resamples, seed)
    inside = included.cpu()
    draws = _drawn_means(torch.where(inside, values.detach().cpu().double(), 0.0), inside, resamples, seed)
    low, high = torch.nanquantile(draws[:, 1] - draws[:, 0], _tails(level)).tolist()
    if low <= 0 <= high:
        low, high = 0.0, max(-low, high)
    else:
        low, high = sorted((abs(low), abs(high)))
    return Estimate(abs(second.value - first.value), low, high, min(first.count, second.count))


def _tails(level: float) -> Tensor:
    return torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)


def _weighted_means(values: Tensor, included: Tensor, weights: Tensor) -> Tensor:
    """(R, N) weights → (R, M) means; NaN where no included value has weight."""
    return (weights @ values) / (weights @ included.double())


def _drawn_means(values: Tensor, included: Tensor, resamples: int, seed: int) -> Tensor:
    """The means of `resamples` draws of N images with replacement, (R, M)."""
    count = len(values)
    if count == 0:
        return torch.full((resamples, values.shape[1]), torch.nan, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, _DRAWS // count)
    means = []
    for start in range(0, resamples, rows):
        draws = torch.randint(count, (min(rows, resamples - start), count), generator=generator)
        times = torch.zeros(draws.shape, dtype=torch.float64).scatter_add_(
            1, draws, torch.ones(1).double().expand_as(draws)
        )
        means.append(_weighted_means(values, included, times))
    return torch.cat(means)
