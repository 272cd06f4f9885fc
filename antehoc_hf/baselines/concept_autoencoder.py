"""The small networks around the concepts: SENN's encoder, and the decoder that SENN and CBAH share."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

_LEAST = 16


def concept_grid(image_size: Sequence[int]) -> tuple[int, int]:
    """Height and width of a concept's grid, S/4 - 3 for a side of S pixels: 5 for 32, 29 for 128.

    Two convolutions of 5×5 without padding, each halved by pooling, give it; the decoder's three transposed
    convolutions go from d back to 4d + 12 = S.

    Raises:
        ValueError: for sides that the decoder cannot meet.
    """
    if any(side % 4 or side < _LEAST for side in image_size):
        nearest = [max(_LEAST, 4 * round(side / 4)) for side in image_size]
        raise ValueError(
            f"image_size={list(image_size)} does not suit the concepts' decoder, whose images have sides that are "
            f"multiples of 4 and at least {_LEAST}: take for example {nearest}."
        )
    return image_size[0] // 4 - 3, image_size[1] // 4 - 3


class ConceptEncoder(nn.Module):
    """SENN's concept encoder: image (B, 3, H, W) → concepts (B, k), each read off a map of its own by one layer for
    all.

    Args:
        num_concepts (`int`): k.
        image_size (`list[int]`): [H, W], as in [`concept_grid`].
    """

    def __init__(self, num_concepts: int, image_size: Sequence[int]) -> None:
        super().__init__()
        height, width = concept_grid(image_size)
        self.maps = nn.Sequential(
            nn.Conv2d(3, 10, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(10, num_concepts, 5), nn.MaxPool2d(2), nn.ReLU()
        )
        self.read = nn.Linear(height * width, 1)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, k)."""
        return self.read(self.maps(pixel_values).flatten(2)).squeeze(2)


class ConceptDecoder(nn.Module):
    """Concepts (B, k) → image (B, 3, H, W) in [-1, 1].

    Args:
        num_concepts (`int`): k.
        image_size (`list[int]`): [H, W], as in [`concept_grid`].
    """

    def __init__(self, num_concepts: int, image_size: Sequence[int]) -> None:
        super().__init__()
        self.grid = concept_grid(image_size)
        self.spread = nn.Linear(1, self.grid[0] * self.grid[1])
        self.image = nn.Sequential(
            nn.ConvTranspose2d(num_concepts, 16, 5, stride=2),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 8, 5),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 3, 2, stride=2, padding=1),
            nn.Tanh(),
        )

    def forward(self, concepts: Tensor) -> Tensor:
        """(B, k) → (B, 3, H, W)."""
        return self.image(self.spread(concepts.unsqueeze(2)).unflatten(2, self.grid))


def reconstruction_target(pixel_values: Tensor, config: object) -> Tensor:
    """What the decoder's image is compared with.

    Args:
        pixel_values (`Tensor`): (B, 3, H, W), normalised by the configuration's mean and std.
        config: a baseline's; `reconstruction_target` says `"pixels"` (scaled to [-1, 1]) or `"normalized"`.

    Returns:
        `Tensor`: (B, 3, H, W), without gradient.
    """
    pixel_values = pixel_values.detach()
    if getattr(config, "reconstruction_target", None) == "normalized":
        return pixel_values
    mean, std = (
        torch.tensor(cast(list[float], getattr(config, name)), device=pixel_values.device, dtype=pixel_values.dtype)
        for name in ("image_mean", "image_std")
    )
    return 2 * (pixel_values * std.view(3, 1, 1) + mean.view(3, 1, 1)) - 1
