"""The first pass sees some images in part, so that the network knows what to make of them."""

import torch
from torch import Tensor

from antehoc_hf.modeling.scaling import patch_grid
from antehoc_hf.training.objectives.patches import (
    Background,
    Normalization,
    Sampling,
    black_of,
    draw_partial_images,
    shown_images,
)
from antehoc_hf.training.objectives.step import TrainingStep


class PartialImages:
    """Replaces a share of each batch by random coalitions of their patches.

    Args:
        config: the model's configuration, with `image_mean` and `image_std`.
        share (`float`): of each batch.
        sampling, background (`str`): as in [`CoalitionOptions`].
        patches (`int`): along an image's shorter side.
    """

    def __init__(
        self,
        config: Normalization,
        share: float,
        sampling: Sampling = "contiguous",
        background: Background = "mixed",
        patches: int = 8,
    ) -> None:
        self.share, self.sampling, self.background, self.patches = share, sampling, background, patches
        self._black = black_of(config)

    def __call__(self, pixel_values: Tensor, step: TrainingStep) -> Tensor:
        """The batch (B, 3, H, W) with its last round(share · B) images in part: the first ones are those that the
        second pass explains.
        """
        count = round(self.share * len(pixel_values))
        if count == 0:
            return pixel_values
        whole, chosen = pixel_values[: len(pixel_values) - count], pixel_values[len(pixel_values) - count :]
        grid = patch_grid((chosen.shape[-2], chosen.shape[-1]), self.patches)
        (drawn,), background = draw_partial_images(
            chosen, grid, self.sampling, self.background, self._black, step.generator(1)
        )
        return torch.cat([whole, shown_images(chosen, drawn, background)])
