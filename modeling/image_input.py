"""Whatever users call an image, as a Pillow image."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_CHANNELS = (1, 3, 4)


def as_pil(image: Any) -> Image.Image:
    """
    A Pillow image from a Pillow image, a path, or an array or tensor of (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4
    channels: floating-point numbers in [0, 1], integers in 0…255, uint16 in 0…65535, or truth values.

    Raises:
        ValueError: if it is none of these.
    """
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, (str, Path)):
        return _from_file(image)
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        image = (image.float() if image.dtype == torch.bfloat16 else image).numpy()
    if not isinstance(image, np.ndarray):
        raise ValueError(f"Expected an image (PIL, path, array or tensor), got {type(image).__name__}.")
    return Image.fromarray(_to_bytes(_channels_last(image)))


def _from_file(path: str | Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.copy()
    except (OSError, SyntaxError) as error:  # Pillow raises both for broken files
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def _channels_last(image: np.ndarray) -> np.ndarray:
    if image.ndim == 3 and image.shape[0] in _CHANNELS and image.shape[2] not in _CHANNELS:
        image = image.transpose(1, 2, 0)
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in _CHANNELS or image.size == 0:
        raise ValueError(
            "Expected an image of (height, width), (height, width, channels) or (channels, height, width) with 1, 3 "
            f"or 4 channels, got an array of {image.shape}."
        )
    return image[..., 0] if image.ndim == 3 and channels == 1 else image


def _to_bytes(image: np.ndarray) -> np.ndarray:
    """Values as bytes; 16-bit grey stays what it is, for Pillow knows it."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == bool:
        return image.astype(np.uint8) * 255
    if image.dtype == np.uint16:
        # 65535 = 257 · 255; adding half of 257 rounds to the nearest.
        return image if image.ndim == 2 else ((image.astype(np.int64) + 128) // 257).astype(np.uint8)
    if np.issubdtype(image.dtype, np.floating):
        if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
            raise ValueError("An image of floating-point numbers must have values in [0, 1].")
        return np.round(image.astype(np.float32) * 255).astype(np.uint8)
    if not np.issubdtype(image.dtype, np.integer):
        raise ValueError(f"An image must be of integers or floating-point numbers, not {image.dtype}.")
    if image.min() < 0 or image.max() > 255:
        raise ValueError(
            f"An image of {image.dtype} must have values in 0…255, this one has {image.min()}…{image.max()}."
        )
    return image.astype(np.uint8)
