"""What is compared: the cells of the verdict table, and how one cell is decided."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from antehoc_hf.evaluation import bootstrap_mean, paired_difference
from antehoc_hf.evaluation.bootstrap import Estimate, bootstrap_means

OURS, REFERENCE = "antehoc", "grad-cam"
MARGIN_BEST, MARGIN_REFERENCE = 0.10, 0.25
"""The aim: so much better than the best of the others, and than Grad-CAM."""
AREAS = (0.05, 0.1, 0.2, 0.3, 0.5)

Aim = Literal["margins", "best", "none"]


@dataclass(frozen=True)
class Cell:
    """One measure.

    Args:
        name: as in the values of an image.
        heading: as a reader sees it.
        higher: whether more is better.
        aim: `"margins"`: better than the best by MARGIN_BEST and than Grad-CAM by MARGIN_REFERENCE. `"best"`: better
            than all others. `"none"`: brightness buys this measure, so it decides nothing.
        decimals: to print.
    """

    name: str
    heading: str
    higher: bool
    aim: Aim
    decimals: int = 1


def _paper(prefix: str, heading: str, aim: Aim) -> list[Cell]:
    measures = (("drop_cond", "Drop", False), ("inc_cond", "Inc", True), ("win", "Win", True))
    return [Cell(f"{prefix}{name}", f"{word}, {heading}", higher, aim) for name, word, higher in measures]


CELLS: tuple[Cell, ...] = (
    Cell("insertion_minus_deletion", "ins − del, pixels, mean", True, "margins", 3),
    Cell("insertion_minus_deletion_pixel_blur", "ins − del, pixels, blur", True, "margins", 3),
    Cell("insertion_minus_deletion_patch_mean", "ins − del, patches, mean", True, "margins", 3),
    Cell("insertion_minus_deletion_patch_blur", "ins − del, patches, blur", True, "margins", 3),
    *(
        Cell(f"keep_{100 * area:g}_avg_drop", f"Average Drop, {100 * area:g} % kept", False, "margins")
        for area in AREAS
    ),
    *_paper("binarised_", "binarised at 0.8", "best"),
    *_paper("equal_area_", "20 % kept", "best"),
    *_paper("", "soft map", "none"),
)


def mean_of(values: Tensor) -> float:
    """Mean of what is defined, NaN if nothing is."""
    return float(values.double().nanmean())


def defined_mean(values: Tensor) -> dict[str, Any]:
    """Mean of the values that are finite with its interval, for JSON."""
    values = values.double().cpu()
    return bootstrap_mean(values[torch.isfinite(values)]).to_dict()


def interval(values: Tensor) -> Estimate:
    """Mean of (N, S) values, S seeds of the same N images, with an interval over the images."""
    if bool(torch.isnan(values).any()):
        center = mean_of(values)
        low, high = _quantiles(_means(values, _draws(len(values))))
        return Estimate(center, low, high, int((~torch.isnan(values)).sum()))
    column = values.double().mean(dim=1, keepdim=True)
    return bootstrap_means(column, torch.ones_like(column, dtype=torch.bool))[0]


def difference(first: Tensor, second: Tensor) -> Estimate:
    """Mean of `first` less mean of `second`, both (N, S), with the interval of the difference, paired by image.

    Drop and Inc are means over the images that lost or gained, which differ from map to map: there the images are
    drawn, and both means taken of each draw. Everything else is `paired_difference`.
    """
    if not bool(torch.isnan(first).any() | torch.isnan(second).any()):
        return paired_difference(first.double().mean(dim=1), second.double().mean(dim=1))
    draws = _draws(len(first))
    low, high = _quantiles(_means(first, draws) - _means(second, draws))
    return Estimate(mean_of(first) - mean_of(second), low, high, len(first))


def gain(ours: float, other: float, higher: bool) -> float:
    """How much better, relative to the other: 0.1 is a tenth. NaN where the other is not above 0."""
    if not other > 0:
        return math.nan
    return (ours - other) / other if higher else (other - ours) / other


def verdict(cell: Cell, values: Mapping[str, Tensor], others: list[str], controls: list[str]) -> dict[str, Any]:
    """Ours against the best of the others.

    Args:
        cell: the measure.
        values: name of a map → (N, S), NaN where the measure says nothing.
        others: methods that ours is compared with.
        controls: maps that explain nothing; the best of them is named, and decides nothing.

    Returns:
        A row of the table. `met` says whether the aim is reached by the means, `certain` whether the images leave no
        doubt that ours is ahead of the best of the others (not: by the margin).
    """
    means = {name: mean_of(values[name]) for name in (OURS, *others, *controls)}
    ours, best, control = means[OURS], _best(means, others, cell.higher), _best(means, controls, cell.higher)
    found: dict[str, Any] = {"cell": cell.name, "heading": cell.heading, "higher": cell.higher, "aim": cell.aim}
    found |= {"ours": ours, "best": best, "best_value": means.get(best or "", math.nan)}
    found |= {"control": control, "control_value": means.get(control or "", math.nan)}
    found |= {"reference_value": means.get(REFERENCE, math.nan)}
    for short in ("best", "reference"):
        value = found[f"{short}_value"]
        found[f"ratio_to_{short}"] = ours / value if value > 0 else math.nan
        found[f"gain_over_{short}"] = gain(ours, value, cell.higher)
    found["difference_to_best"] = difference(values[OURS], values[best]).to_dict() if best else None
    found["met"] = _met(cell, found)
    # Without an image that gains there is nothing to draw an interval from.
    edge = (found["difference_to_best"] or {}).get("low" if cell.higher else "high")
    found["certain"] = edge is not None and (edge > 0 if cell.higher else edge < 0)
    return found


def _met(cell: Cell, found: Mapping[str, Any]) -> bool | None:
    """None where there is nothing to decide, or to compare with."""
    if cell.aim == "none" or math.isnan(found["ours"]) or not found["best"]:
        return None
    sign = 1 if cell.higher else -1
    ahead = sign * found["ours"] > sign * found["best_value"]
    if cell.aim == "best":
        return ahead
    pairs = (("best", MARGIN_BEST), ("reference", MARGIN_REFERENCE))
    # A method at or below chance has no percent: being ahead of it is enough.
    gains = [(found[f"gain_over_{short}"], margin) for short, margin in pairs]
    return ahead and all(math.isnan(value) or value >= margin for value, margin in gains)


def _best(means: Mapping[str, float], names: list[str], higher: bool) -> str | None:
    known = [name for name in names if not math.isnan(means[name])]
    if not known:
        return None
    return max(known, key=lambda name: means[name]) if higher else min(known, key=lambda name: means[name])


def _draws(count: int, resamples: int = 1000) -> Tensor:
    return torch.randint(count, (resamples, count), generator=torch.Generator().manual_seed(0))


def _means(values: Tensor, draws: Tensor) -> Tensor:
    """(N, S) and (R, N) draws of images → (R,)."""
    defined = ~torch.isnan(values)
    sums, counts = values.double().nan_to_num(0.0).sum(dim=1), defined.double().sum(dim=1)
    return sums[draws].sum(dim=1) / counts[draws].sum(dim=1)


def _quantiles(draws: Tensor) -> tuple[float, float]:
    low, high = torch.nanquantile(draws, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
