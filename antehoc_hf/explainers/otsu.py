"""Otsu's threshold, in two dimensions for maps and in one for lists of numbers."""

import torch
from torch import Tensor

_BINS = 256


def otsu(values: Tensor, exact: bool = False) -> float | None:
    """The threshold that separates numbers into two classes with the largest variance between them (Otsu, "A Threshold
    Selection Method from Gray-Level Histograms", 1979).

    Args:
        values (`Tensor`): any shape, in [0, 1].
        exact (`bool`): try every split of the sorted numbers; else 256 bins, a number v in bin round(255 v).

    Returns:
        `float` or `None`: the upper edge of the lower class, so that the upper class is `values > threshold`; None if
        all numbers fall together.
    """
    flat = values.detach().double().flatten()
    if exact:
        levels, counts = flat.unique(return_counts=True)
        weights = counts.double()
    else:
        weights = torch.bincount((flat * (_BINS - 1)).round().long().clamp(0, _BINS - 1), minlength=_BINS).double()
        levels = torch.arange(_BINS, device=flat.device, dtype=torch.float64) / (_BINS - 1)
    if int((weights > 0).sum()) < 2:
        return None
    below = weights.cumsum(0)[:-1]
    above = weights.sum() - below
    mass = (weights * levels).cumsum(0)
    mean_below = mass[:-1] / below.clamp_min(1)
    mean_above = (mass[-1] - mass[:-1]) / above.clamp_min(1)
    between = below * above * (mean_below - mean_above).square()
    best = int(between.argmax())
    # Half a bin above the level: numbers of the same bin stay on one side.
    return float(levels[best]) if exact else (best + 0.5) / (_BINS - 1)
