"""How little a map changes when the image hardly does.

A map that never changes is stable and explains nothing: compare with a constant map.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from antehoc_hf.evaluation.faithfulness import IncDenominator, drop_terms, inc_terms
from antehoc_hf.evaluation.maps import check_maps, degenerate_maps, image_seeds
from antehoc_hf.evaluation.metric import Metric, given_scores, register_metric
from antehoc_hf.evaluation.rank_correlation import spearman

# Apart from the draws of ties and controls, which start from the same seed.
_STREAM = 7919


def salt_and_pepper(
    pixel_values: Tensor,
    share: float,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int = 0,
    first_index: int = 0,
) -> Tensor:
    """Images with a share of their pixels turned white or black, half of them each, all channels of a pixel together
    (the ante-hoc paper's Table 5).

    Exactly `share · H · W` pixels are hit (rounded), drawn without replacement; those of a smaller share are among
    those of a larger one.

    Args:
        pixel_values (`Tensor`): (B, C, H, W), normalised: `(pixels − mean) / std` with pixels in [0, 1].
        share (`float`): in [0, 1].
        mean, std (`Sequence[float]`): (C,) of the normalisation; an image processor's `image_mean` and `image_std`.
        seed, first_index (`int`): of the draw; `first_index` is the index of the first image in its data set.

    Returns:
        `Tensor`: (B, C, H, W), a new one.

    Raises:
        ValueError: if the images are not (B, C, H, W), share is outside [0, 1], or mean and std don't fit them.
    """
    if pixel_values.ndim != 4:
        raise ValueError(f"pixel_values must be (B, C, H, W), but their shape is {tuple(pixel_values.shape)}.")
    if not 0 <= share <= 1:
        raise ValueError(f"share={share!r} must be between 0 and 1: it is the part of the pixels that is hit.")
    batch, channels, height, width = pixel_values.shape
    if len(mean) != channels or len(std) != channels or not all(value > 0 for value in std):
        raise ValueError(f"mean and std must be {channels} numbers each, one for each channel, and std positive.")
    count = round(share * height * width)
    salt = torch.zeros(batch, height * width, dtype=torch.bool)
    pepper = torch.zeros_like(salt)
    for row, image_seed in enumerate(image_seeds(batch, seed + _STREAM, first_index)):
        hit = torch.randperm(height * width, generator=torch.Generator().manual_seed(image_seed))[:count]
        salt[row, hit[::2]], pepper[row, hit[1::2]] = True, True
    shape = (batch, 1, height, width)
    black, white = (
        torch.tensor([(value - m) / s for m, s in zip(mean, std, strict=True)]).to(pixel_values).view(1, -1, 1, 1)
        for value in (0.0, 1.0)
    )
    noisy = torch.where(salt.view(shape).to(pixel_values.device), white, pixel_values)
    return torch.where(pepper.view(shape).to(pixel_values.device), black, noisy)


def map_similarity(maps: Tensor, other_maps: Tensor) -> Tensor:
    """Spearman's rank correlation of two maps of each image over its pixels, equal values sharing their mean rank.

    A constant map orders nothing: with another constant map it agrees (1), with any other it has nothing in common
    (0). So a method that always gives the same map is found to give the same map.

    Args:
        maps, other_maps (`Tensor`): (B, 1, H, W), finite.

    Returns:
        `Tensor`: (B,) float32 in [−1, 1]; 1 for the same order of pixels.

    Raises:
        ValueError: if the shapes differ or the maps are not finite.
    """
    check_maps(maps)
    check_maps(other_maps, "other_maps")
    if maps.shape != other_maps.shape:
        raise ValueError(
            f"Both maps must have one shape, but it is {tuple(maps.shape)} and {tuple(other_maps.shape)}."
        )
    other_maps = other_maps.to(maps.device)
    flat, other_flat = degenerate_maps(maps), degenerate_maps(other_maps)
    similarity = spearman(maps.flatten(1), other_maps.flatten(1))
    similarity = torch.where(flat | other_flat, 0.0, similarity)
    return torch.where(flat & other_flat, 1.0, similarity)


def max_sensitivity(
    explain: Callable[[Tensor], Tensor],
    pixel_values: Tensor,
    radius: float = 0.02,
    draws: int = 10,
    seed: int = 0,
    first_index: int = 0,
) -> Tensor:
    """Largest relative change of the map within a small box around the image, `max_k ‖A(x + δ_k) − A(x)‖ / ‖A(x)‖`,
    Euclidean norms over pixels, δ_k uniform in [−radius, radius] (Yeh, Hsieh, Suggala, Inouye, Ravikumar, "On the
    (In)fidelity and Sensitivity of Explanations", NeurIPS 2019, Sec. 3, estimated by draws).

    Args:
        explain: (B, C, H, W) → maps (B, 1, H, W). Fix the target: else a change of the prediction counts as well.
        pixel_values (`Tensor`): (B, C, H, W).
        radius (`float`): in the units of `pixel_values`.
        draws (`int`): how many δ an image.
        seed, first_index (`int`): of the draws, the same for an image however the data are batched.

    Returns:
        `Tensor`: (B,) float32, at least 0; lower is more stable. For a map of zeros 0 if it stays one, else NaN: the
            change is relative to nothing.

    Raises:
        ValueError: for a radius that is not positive, no draws, or maps that are not (B, 1, H, W) and finite.
    """
    if not radius > 0:
        raise ValueError(f"radius={radius!r} must be positive.")
    if draws < 1:
        raise ValueError(f"draws={draws!r} must be at least 1.")
    seeds = image_seeds(len(pixel_values), seed + _STREAM, first_index)
    generators = [torch.Generator().manual_seed(image_seed) for image_seed in seeds]
    whole = check_maps(explain(pixel_values)).flatten(1).float()
    size, largest = whole.norm(dim=1), torch.zeros(len(whole), device=whole.device)
    for _ in range(draws):
        delta = torch.empty(pixel_values.shape)
        for single, generator in zip(delta, generators, strict=True):
            single.uniform_(-radius, radius, generator=generator)
        moved = check_maps(explain(pixel_values + delta.to(pixel_values))).flatten(1).float()
        largest = torch.maximum(largest, (moved - whole).norm(dim=1))
    return torch.where(size > 0, largest / size, torch.where(largest > 0, torch.nan, 0.0))


def drop_pairs(
    p_image: Tensor, p_energy: Tensor, p_noisy_image: Tensor, p_noisy_energy: Tensor, tolerance: float = 0.0
) -> Tensor:
    """Terms of Drop without and with noise, (B, 2); the paper's CD is the size of the difference of their two means.

    The noise comes first: the map and both probabilities of the noisy side are computed on the noisy image. The two
    means run over different images, those that lost on either side, as the paper's Drop does.

    Args:
        p_image, p_energy (`Tensor`): (B,) probabilities of the target class, of the image and of its energy map.
        p_noisy_image, p_noisy_energy (`Tensor`): (B,) the same of the noisy image and of its own energy map.
        tolerance (`float`): relative differences up to this are rounding and count as none.

    Raises:
        ValueError: if the shapes differ, or the values are not finite probabilities.
    """
    _check_pairs(p_image, p_noisy_image)
    pair = drop_terms(p_image, p_energy, tolerance), drop_terms(p_noisy_image, p_noisy_energy, tolerance)
    return torch.stack(pair, dim=1)


def inc_pairs(
    p_image: Tensor,
    p_energy: Tensor,
    p_noisy_image: Tensor,
    p_noisy_energy: Tensor,
    denominator: IncDenominator = "energy",
    tolerance: float = 0.0,
) -> Tensor:
    """The same of Inc, for the paper's CI; `denominator` as in `inc_cond`."""
    _check_pairs(p_image, p_noisy_image)
    clean = inc_terms(p_image, p_energy, denominator, tolerance)
    return torch.stack([clean, inc_terms(p_noisy_image, p_noisy_energy, denominator, tolerance)], dim=1)


def _check_pairs(clean: Tensor, noisy: Tensor) -> None:
    if clean.shape != noisy.shape:
        raise ValueError(
            f"There must be as many noisy images as clean ones, but they are {tuple(noisy.shape)} and "
            f"{tuple(clean.shape)}."
        )


register_metric(
    Metric("drop_change", drop_pairs, "CD", "lower", "The paper's CD: change of Drop by noise, points.", decimals=1),
    Metric("inc_change", inc_pairs, "CI", "lower", "The paper's CI: change of Inc under noise, points.", decimals=1),
    Metric("map_similarity", map_similarity, "similarity", None, "Rank correlation of two maps, in [−1, 1]."),
    Metric("max_sensitivity", given_scores, "max. sensitivity", "lower", "`max_sensitivity(…)`."),
)
