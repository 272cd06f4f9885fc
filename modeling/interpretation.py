"""From soft attention maps and weights to the interpretation map, and from it to the energy map."""

import torch
from torch import Tensor

from .attention_maps import has_contrast, minmax, stretch
from .resize import resize


def weight_maps(weight_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """
    Softmax over the η maps at each position, upsampled bilinearly: averages of weights still sum to 1 at every pixel.

    Args:
        weight_logits (`Tensor`): (B, η, h, w), of the weight network.
        size (`tuple[int, int]`): height and width H, W of the input.

    Returns:
        `Tensor`: (B, η, H, W), non-negative, summing to 1 over η.
    """
    weights = weight_logits.softmax(dim=1)
    if weights.shape[-2:] == (1, 1):
        return weights.expand(-1, -1, *size)
    return resize(weights, size)


def interpretation_map(
    soft_attention_maps: Tensor, weight_maps: Tensor, attention_scaling: str = "none", map_scaling: str = "minmax"
) -> tuple[Tensor, Tensor]:
    """
    I_map = Σ_n WM_n ⊙ SAM_n (Eq. 1), scaled.

    Without rescaling the map's mean is 1/(H·W): the energy map would be black and the paper's threshold of 0.8 could
    not be reached. `"max"` and `"area"` admit the trivial near-constant map; min-max forces full contrast.

    Args:
        soft_attention_maps (`Tensor`): (B, η, H, W), each of sum 1.
        weight_maps (`Tensor`): (B, η, H, W), summing to 1 over η.
        attention_scaling, map_scaling (`str`): see `AnteHocConfig`.

    Returns:
        `tuple[Tensor, Tensor]`: the map (B, 1, H, W) float32 in [0, 1] (with `map_scaling="area"` its mean is 1), and
        (B,) bool, true where a map shows nothing: constant or not finite, in which case it is set to zero.
    """
    maps = minmax(soft_attention_maps) if attention_scaling == "minmax" else soft_attention_maps
    area = maps.shape[-2] * maps.shape[-1]
    combined = (weight_maps * maps).sum(dim=1, keepdim=True)
    low = combined.amin(dim=(2, 3), keepdim=True)
    high = combined.amax(dim=(2, 3), keepdim=True)
    shows_something = has_contrast(low, high)
    if map_scaling == "minmax":
        scaled = stretch(combined, low, high)
    elif map_scaling == "max":
        scaled = combined / high.clamp_min(torch.finfo(combined.dtype).tiny)
    elif map_scaling == "area":
        scaled = combined * area
    else:
        scaled = combined
    # `where` and not a product, since 0 · NaN is NaN.
    keep = shows_something if map_scaling == "minmax" else torch.isfinite(high)
    return torch.where(keep, scaled, torch.zeros_like(scaled)), ~shows_something.flatten()


def energy_map(
    pixel_values: Tensor, interpretation_map: Tensor, mean: Tensor, std: Tensor, mask_space: str = "pixel"
) -> Tensor:
    """
    The energy map I_second = I_first ⊙ I_map (Eq. 2), normalised as the backbone expects it.

    In pixel space, with x the normalised image: ν(pixels ⊙ M) = M·x + (M − 1)·mean/std, so 0 in the map is black.

    Args:
        pixel_values (`Tensor`): normalised images, (B, 3, H, W).
        interpretation_map (`Tensor`): (B, 1, H, W) in [0, 1].
        mean, std (`Tensor`): (1, 3, 1, 1), of pixels in [0, 1].
        mask_space (`str`): `"pixel"` or `"normalized"` (0 in the map is then the mean colour).

    Returns:
        `Tensor`: (B, 3, H, W), of the type of `pixel_values`.
    """
    mask = interpretation_map.to(pixel_values.dtype)
    if mask_space == "normalized":
        return pixel_values * mask
    black = (-mean / std).to(pixel_values.dtype)
    return torch.lerp(black.expand_as(pixel_values), pixel_values, mask.expand_as(pixel_values))
