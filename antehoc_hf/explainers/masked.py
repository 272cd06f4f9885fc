"""Masked images through a network, in chunks."""

from __future__ import annotations

import torch
from torch import Tensor

from antehoc_hf.explainers.network import Network
from antehoc_hf.explainers.targets import Target


@torch.no_grad()
def masked_confidences(
    network: Network,
    image: Tensor,
    masks: Tensor,
    at: Tensor,
    target: Target,
    mask_space: str = "normalized",
    batch_size: int = 64,
) -> Tensor:
    """
    The confidence in a target that is left of an image under each mask.

    Args:
        network: the model.
        image (`Tensor`): (3, H, W), normalised.
        masks (`Tensor`): (N, 1, H, W) in [0, 1].
        at (`Tensor`): (1,) the image's position in the batch of the target.
        target: whose confidence.
        mask_space (`str`): masks multiply the `"normalized"` input, or `"pixel"` values, where 0 is black.
        batch_size (`int`): masked images a pass.

    Returns:
        `Tensor`: (N,) float32.
    """
    black = network.black(image[None]) if mask_space == "pixel" else torch.zeros_like(image[None])
    found = []
    for chunk in masks.split(batch_size):
        images = torch.lerp(black.float(), image[None].float(), chunk.float()).to(image.dtype)
        positions = at.expand(len(chunk))
        found.append(target.select(positions).confidence(network(images, positions)))
    return torch.cat(found)
