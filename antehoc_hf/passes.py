"""How many images go through a network at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

# Five images at 224 pixels. The C library gives blocks beyond some 32 MB back to the system as soon as a layer is done
# with them, and gets them again page by page for the next layer: with 32 images at 224 pixels that took more than half
# of EfficientNet-Lite0's time.
_PIXELS_ON_A_CPU = 2**18


def in_parts(predict: Callable[[Tensor], Tensor], pixel_values: Tensor) -> Tensor:
    """What a network makes of images, on a CPU in passes of at most 2¹⁸ pixels, if that is an image at least.

    Args:
        predict: images (n, 3, H, W) → (n, …).
        pixel_values (`Tensor`): (N, 3, H, W).

    Returns:
        `Tensor`: (N, …), as from one pass up to rounding.
    """
    images = images_a_pass(pixel_values, len(pixel_values))
    if len(pixel_values) <= images:
        return predict(pixel_values)
    return torch.cat([predict(part) for part in pixel_values.split(images)])


def images_a_pass(pixel_values: Tensor, most: int) -> int:
    """How many images of this size to take at a time, `most` or fewer: see [`in_parts`]."""
    if pixel_values.device.type != "cpu":
        return most
    return min(most, max(1, _PIXELS_ON_A_CPU // max(1, pixel_values.shape[-2] * pixel_values.shape[-1])))
