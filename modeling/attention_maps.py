"""Soft attention maps (SAM): what each tapped layer looks at, as one map of mass 1 an image."""

from contextlib import AbstractContextManager, nullcontext
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from .resize import halve
from .resize import resize as resize_maps


def channel_attention(features: Tensor, reduction: str, softmax: str) -> Tensor:
    """
    The channels of one layer as a single map on the layer's own grid.

    The sum of Eq. 1 over layers of different width forces a single map a layer. For `softmax="spatial"` the softmax
    itself is left to [`soft_attention_maps`], so that it can be taken before or after resizing.

    Args:
        features (`Tensor`): activations, (B, C, h, w).
        reduction (`str`): `"mean"`, `"max"`, `"l2"` or `"sum"`, used with `softmax="spatial"`.
        softmax (`str`): reading of the softmax's axis, see `AnteHocConfig.attention_softmax`.

    Returns:
        `Tensor`: (B, h, w) scores for `"spatial"`, probabilities for the other readings, in float32.
    """
    if softmax == "spatial":
        return _reduce(features, reduction)
    features = features.float()
    if softmax == "per_channel":
        return features.flatten(2).softmax(dim=2).mean(dim=1).unflatten(1, features.shape[2:])
    if softmax == "joint":
        joint = features.flatten(1).softmax(dim=1)
        return joint.unflatten(1, features.shape[1:]).sum(dim=1)
    return features.softmax(dim=1).amax(dim=1)  # "channels"


def _reduce(features: Tensor, reduction: str) -> Tensor:
    # Half-precision features are added up in float32: their sum may exceed float16, and bfloat16 would round the map.
    if reduction == "mean":
        return features.mean(dim=1, dtype=torch.float32)
    if reduction == "sum":
        return features.sum(dim=1, dtype=torch.float32)
    if reduction == "max":
        return features.amax(dim=1).float()
    return features.float().square().sum(dim=1).sqrt()  # "l2"


def soft_attention_maps(
    attentions: list[Tensor], size: tuple[int, int], softmax: str = "spatial", resize: str = "renormalized"
) -> Tensor:
    """
    Soft attention maps at input size, SAM_n = Resize(Softmax(F_n)).

    A layer's softmax has mean 1/(h·w): without renormalising after the resize, a 4×4 layer is 256 times as bright as
    a 64×64 one and wins every convex combination by that alone; hence the default.

    Args:
        attentions (`list[Tensor]`): η maps (B, h_n, w_n) of [`channel_attention`].
        size (`tuple[int, int]`): height and width H, W of the input.
        softmax, resize (`str`): see `AnteHocConfig.attention_softmax` and `AnteHocConfig.attention_resize`.

    Returns:
        `Tensor`: (B, η, H, W), float32, each map non-negative and, unless `resize="literal"`, of sum 1.
    """
    maps = []
    for _, same_grid in groupby(attentions, key=lambda attention: attention.shape):
        together = torch.stack(list(same_grid), dim=1)
        if softmax == "spatial" and resize != "resize_first":
            together = together.flatten(2).softmax(dim=2).unflatten(2, together.shape[2:])
        maps.append(resize_maps(together, size))
    stacked = torch.cat(maps, dim=1)
    del maps  # in training this is where memory peaks: the first pass's graph is still alive
    if resize == "resize_first":
        return stacked.flatten(2).softmax(dim=2).unflatten(2, size)
    if resize == "literal":
        return stacked
    mass = stacked.sum(dim=(2, 3), keepdim=True)
    return stacked / mass if stacked.requires_grad else stacked.div_(mass)


def minmax(maps: Tensor) -> Tensor:
    """Stretches every map (B, η, H, W) to [0, 1]; one that is constant but for rounding becomes 0."""
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    return torch.where(has_contrast(low, high), stretch(maps, low, high), 0)


def has_contrast(low: Tensor, high: Tensor) -> Tensor:
    """
    Whether maps with these minima and maxima show something. Differences in the last digits are rounding: the mean
    over the channels of a layer norm, for one, is zero everywhere, and stretching it would show noise.
    """
    # False as well where a map is not finite: a NaN anywhere in it makes `high` NaN, with which comparisons are false,
    # and infinity is not more than infinity.
    return high - low > 1e-5 * torch.maximum(high.abs(), low.abs())


def stretch(maps: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """
    (maps − low) / (high − low), with an epsilon relative to the maps' own magnitude: soft attention maps have values
    around 1/(H·W), and an absolute 1e-8 would dim the maps of large images.
    """
    span = high - low
    scale = 1 / (span + 1e-8 * (low.abs() + span) + torch.finfo(maps.dtype).tiny)
    return (maps - low) * scale


def shrink(maps: Tensor, factor: int) -> Tensor:
    """Maps (B, η, H, W) at 1/`factor` of their size, rounded up; at half the size the mean of 2×2 pixels."""
    if factor == 1:
        return maps
    height, width = maps.shape[-2:]
    if factor == 2 and height % 2 == 0 and width % 2 == 0:
        return halve(maps)
    size = [-(-side // factor) for side in (height, width)]
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False, antialias=True)


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """No autocast inside: values around 1/(H·W) of a large image are below what float16 can hold."""
    device = like.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)
