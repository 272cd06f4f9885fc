"""Measures of landmarks, and the outlines of parts that maps are measured against."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

NORMALIZERS = ("interocular", "box")
"""What an error is divided by: the distance of the outer eye corners, or the diagonal of the points' box."""

LIMIT = 0.08
_ROUNDING = 1e-9  # square pixels


def nme(found: Tensor, labels: Tensor, normalizer: Tensor) -> Tensor:
    """Normalised mean error of each image: the mean distance of its known points, in units of a length of the object.

    Args:
        found, labels (`Tensor`): (B, K, 2), in one unit; a point with NaN in `labels` is unknown.
        normalizer (`Tensor`): (B, 2): what an error along x and y is multiplied by to be in units of that length,
            see [`normalizers`]. (B, 1) for both axes alike.

    Returns:
        `Tensor`: (B,) float64, 0.08 being 8 %; NaN where no point or no length is known.

    Raises:
        ValueError: if the shapes don't fit.
    """
    if found.shape != labels.shape or found.ndim != 3 or found.shape[2] != 2:
        raise ValueError(
            f"Points must be (B, K, 2) both, but they are {tuple(found.shape)} and {tuple(labels.shape)}."
        )
    if normalizer.ndim != 2 or len(normalizer) != len(found) or normalizer.shape[1] not in (1, 2):
        raise ValueError(
            f"The normalizer of {len(found)} images must be ({len(found)}, 2), not {tuple(normalizer.shape)}."
        )
    errors = (found.double() - labels.double()) * normalizer.double()[:, None, :]
    return errors.norm(dim=2).nanmean(dim=1)


def auc(errors: Tensor, limit: float = LIMIT) -> float:
    """Area under the curve "share of images with at most this error" from 0 to `limit`, as a part of the whole area.

    It is exact, the integral of a step function: the mean of `max(0, 1 − error / limit)`.

    Args:
        errors (`Tensor`): (N,), see [`nme`]; NaN is left out, infinity is a failure.
        limit (`float`): where the curve ends, 0.08 being 8 %.

    Returns:
        `float`: in [0, 1], higher is better; NaN for no errors.

    Raises:
        ValueError: if the limit is not positive.
    """
    if not limit > 0:
        raise ValueError(f"limit={limit!r} must be positive, such as 0.08 for 8 %.")
    return _mean((1 - errors[~errors.isnan()].double() / limit).clamp(min=0))


def failure_rate(errors: Tensor, limit: float = LIMIT) -> float:
    """Share of images whose error exceeds `limit`, in [0, 1]; NaN for no errors.

    Args:
        errors (`Tensor`): (N,), see [`nme`]; NaN is left out.
        limit (`float`): 0.08 is 8 %.
    """
    return _mean((errors[~errors.isnan()] > limit).double())


def landmark_metrics(found: Tensor, labels: Tensor, normalizer: Tensor) -> dict[str, float]:
    """What an evaluation reports, all but `auc_8` in percent.

    `nme_interocular` and `nme_box` (each where its length is known), and for the first of them `auc_8` (in [0, 1]) and
    `failure_rate_8`, both with the limit at 8 %, and `nme_of_mean_points`: that of one answer for all images, the mean
    of the true points.

    Args:
        found, labels (`Tensor`): (B, K, 2).
        normalizer (`Tensor`): (B, 2, 2), see [`normalizers`].
    """
    errors_by: dict[str, float] = {}
    curves: dict[str, float] = {}
    for index, name in enumerate(NORMALIZERS):
        errors = nme(found, labels, normalizer[:, index])
        if bool(errors.isnan().all()):
            continue
        errors_by[f"nme_{name}"] = 100 * _mean(errors[~errors.isnan()])
        if not curves:
            mean = nme(labels.nanmean(dim=0).expand_as(labels), labels, normalizer[:, index])
            curves = {"auc_8": auc(errors), "failure_rate_8": 100 * failure_rate(errors)}
            curves["nme_of_mean_points"] = 100 * _mean(mean[~mean.isnan()])
    return {**errors_by, **curves}


def normalizers(points: Tensor, unit: tuple[float, float], eyes: tuple[int, int] | None) -> Tensor:
    """What an error of one image is multiplied by to be in units of its inter-ocular distance and of its box's
    diagonal.

    Args:
        points (`Tensor`): (K, 2), all annotated points in pixels, whichever of them a model finds; NaN where missing.
        unit (`tuple[float, float]`): how many pixels an error of 1 is along x and y.
        eyes (`tuple[int, int]`, *optional*): the points at the outer eye corners.

    Returns:
        `Tensor`: (2, 2), in the order of `NORMALIZERS`, along x and y; NaN where the length is unknown or 0.
    """
    known = points[torch.isfinite(points).all(dim=1)].double()
    box = (known.amax(dim=0) - known.amin(dim=0)).norm() if len(known) else torch.tensor(math.nan)
    between = (points[eyes[0]] - points[eyes[1]]).double().norm() if eyes is not None else torch.tensor(math.nan)
    lengths = torch.stack([between.double(), box.double()])
    lengths = torch.where(lengths > 0, lengths, torch.nan)
    return torch.tensor(unit, dtype=torch.float64) / lengths[:, None]


def hull_mask(points: Tensor, height: int, width: int) -> Tensor:
    """The pixels whose centre lies in the convex hull of points, edges included.

    Args:
        points (`Tensor`): (N, 2), x and y in units of width and height, (i + 0.5) / W the centre of pixel i.
        height, width (`int`): of the mask.

    Returns:
        `Tensor`: (height, width) bool; empty if a point is missing (NaN) or all lie on a line.
    """
    places = points.double() * torch.tensor([width, height], dtype=torch.float64)
    pairs = torch.cartesian_prod(torch.arange(len(places)), torch.arange(len(places)))
    start, end = places[pairs[:, 0]], places[pairs[:, 1]]

    def side(x: Tensor, y: Tensor) -> Tensor:
        """On which side of the line through each pair a place lies: (pairs, places), 0 on it."""
        across, down = (end - start).unsqueeze(2).unbind(dim=1)
        return across * (y - start[:, 1:]) - down * (x - start[:, :1])

    # A line with points on one side of it alone is an edge of the hull.
    of_points = side(*places.T)
    edges = (of_points >= -_ROUNDING).all(dim=1) & (of_points > _ROUNDING).any(dim=1)
    if not bool(edges.any()):
        return torch.zeros(height, width, dtype=torch.bool)
    start, end = start[edges], end[edges]
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) + 0.5 for n in (height, width)), indexing="ij")
    return (side(x.flatten(), y.flatten()) >= 0).all(dim=0).view(height, width)


def hulls_mask(pieces: Sequence[Tensor], height: int, width: int) -> Tensor:
    """The union of the hulls of a part's convex pieces, such as two eyes; see [`hull_mask`].

    Empty if one of them is: half a part would be no measure of a map.
    """
    masks = [hull_mask(piece, height, width) for piece in pieces]
    if not all(bool(mask.any()) for mask in masks):
        return torch.zeros(height, width, dtype=torch.bool)
    return torch.stack(masks).any(dim=0)


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else math.nan
