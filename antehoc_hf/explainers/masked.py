"""Masked images through a network, in chunks."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from antehoc_hf.explainers.network import Question
from antehoc_hf.passes import images_a_pass


def masked_outputs(
    question: Question, position: int, masks: Tensor, batch_size: int, baseline: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """What the network makes of an image under each mask.

    Args:
        question: the images and the model.
        position (`int`): which of the images.
        masks (`Tensor`): (N, 1, H, W) float32 in [0, 1].
        batch_size (`int`): masked images a pass at most; fewer of large images on a CPU.
        baseline (`Tensor`, *optional*): (1, C, H, W), what is seen where a mask is 0; zeros otherwise.

    Yields:
        `tuple[Tensor, Tensor]`: the outputs for n ≤ `batch_size` masks, and (n,) times the image's position.
    """
    image = question.images[position : position + 1].float()
    nothing = torch.zeros_like(image) if baseline is None else baseline.float()
    for chunk in masks.split(images_a_pass(image, batch_size)):
        at = torch.full((len(chunk),), position, device=image.device)
        yield question(torch.lerp(nothing, image, chunk).to(question.images.dtype), at), at


def upsampled(channels: Tensor, size: tuple[int, int]) -> Tensor:
    """Channels (N, h, w) at input size, (N, 1, H, W)."""
    return F.interpolate(channels[:, None], size=size, mode="bilinear", align_corners=False)
