"""How much a map shows: its mean, and whether its values are spread over the image or gathered in few places.

A small explanation is easier to read, not more faithful: these never stand in for the other metrics.
Sources: Bhatt, Weller, Moura, "Evaluating and Aggregating Feature-based Model Explanations", IJCAI 2020 (entropy, as
"complexity"); Chalasani et al., "Concise Explanations of Neural Networks using Adversarial Training", ICML 2020 (Gini
index, as "sparseness").
"""

import math

import torch
from torch import Tensor

from antehoc_hf.evaluation.maps import check_maps
from antehoc_hf.evaluation.metric import Metric, register_metric


def map_mean(maps: Tensor) -> Tensor:
    """Mean value of each map: how bright the energy map is left, which Drop, Inc and Win reward.

    Args:
        maps (`Tensor`): (B, 1, H, W), finite.

    Returns:
        `Tensor`: (B,) float32; in [0, 1] for maps in [0, 1].

    Raises:
        ValueError: for maps of another shape or not finite.
    """
    return check_maps(maps).float().mean(dim=(1, 2, 3))


def map_entropy(maps: Tensor) -> Tensor:
    """Entropy of the map as a distribution over pixels, `−Σ q log q / log(H·W)` with `q = map / Σ map`.

    Args:
        maps (`Tensor`): (B, 1, H, W), finite and not negative.

    Returns:
        `Tensor`: (B,) float32 in [0, 1]: 1 for a constant map, 0 for a single bright pixel, whatever the scale. NaN
            for a map of zeros, which cannot be a distribution, and for images of one pixel.

    Raises:
        ValueError: for maps of another shape, negative or not finite.
    """
    values = _check(maps)
    if values.shape[1] == 1:
        return torch.full_like(values[:, 0], torch.nan)
    share = values / values.sum(dim=1, keepdim=True)
    return -torch.special.xlogy(share, share).sum(dim=1) / math.log(values.shape[1])


def map_gini(maps: Tensor) -> Tensor:
    """Gini index of the map's values: `Σ (2i − n − 1) v_i / (n Σ v)` over the n values sorted upwards, i = 1 … n.

    Args:
        maps (`Tensor`): (B, 1, H, W), finite and not negative.

    Returns:
        `Tensor`: (B,) float32 in [0, 1 − 1/n]: 0 for a constant map, 1 − 1/n for a single bright pixel, whatever the
            scale. NaN for a map of zeros.

    Raises:
        ValueError: for maps of another shape, negative or not finite.
    """
    values = _check(maps).sort(dim=1).values
    count = values.shape[1]
    # In [−1, 1], so that sums over many pixels stay exact.
    weight = (2 * torch.arange(1, count + 1, device=values.device, dtype=values.dtype) - count - 1) / count
    return (weight * values).sum(dim=1) / values.sum(dim=1)


def _check(maps: Tensor) -> Tensor:
    """The values of each map relative to its largest, (B, H·W) float32; NaN for a map of zeros."""
    values = check_maps(maps).float().flatten(1)
    if values.numel() and float(values.min()) < 0:
        raise ValueError(f"Complexity needs maps without negative values, but the least is {float(values.min())}.")
    return values / values.amax(dim=1, keepdim=True)


register_metric(
    Metric("map_mean", map_mean, "mean of map", None, "Mean value of the map: its brightness."),
    Metric("map_entropy", map_entropy, "entropy", None, "Entropy of the map, in [0, 1]; 1 if constant.", columns=()),
    Metric(
        "map_gini", map_gini, "Gini index", None, "Gini index of the values, in [0, 1); 0 if constant.", columns=()
    ),
)
