"""What insertion, deletion and ROAD have in common: many versions of each image, seen in full chunks."""

from collections.abc import Callable

import torch
from torch import Tensor

from antehoc_hf.evaluation.maps import check_maps


def curves(
    predict: Callable[[Tensor], Tensor],
    target: Tensor,
    points: int,
    version: Callable[[Tensor, Tensor], Tensor],
    chunk_size: int,
) -> Tensor:
    """Probability of the target class on `points` versions of each image, (B, points).

    Args:
        predict: images (N, 3, H, W) → probabilities (N, K).
        target (`Tensor`): (B,) int64.
        points (`int`): versions of an image.
        version: indices of images (N,) and of points (N,) → those versions, (N, 3, H, W).
        chunk_size (`int`): images a call of `predict`. The versions of all images form one list.
    """
    seen = []
    for index in torch.arange(len(target) * points, device=target.device).split(chunk_size):
        image, point = index // points, index % points
        if len(index):
            probabilities = predict(version(image, point)).float()
            seen.append(probabilities.gather(1, target[image, None]).squeeze(1))
    return torch.cat(seen).view(-1, points) if seen else torch.zeros(0, points, device=target.device)


def check_curves(pixel_values: Tensor, maps: Tensor, target: Tensor, chunk_size: int) -> None:
    """Raises a ValueError if shapes don't fit, maps are not finite, or chunks are empty."""
    check_maps(maps)
    batch, height, width = len(pixel_values), *pixel_values.shape[-2:]
    if pixel_values.ndim != 4 or maps.shape != (batch, 1, height, width) or target.shape != (batch,):
        raise ValueError(
            "pixel_values (B, 3, H, W), maps (B, 1, H, W) and target (B,) don't fit: they are "
            f"{tuple(pixel_values.shape)}, {tuple(maps.shape)} and {tuple(target.shape)}."
        )
    if chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size!r} must be at least 1.")
