"""From tensors to pixels: images, and maps over images."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PILImage
from torch import Tensor
from torch.nn import functional as F

from antehoc_hf.modeling.image_input import to_rgb

COLORMAP = "inferno"  # perceptually uniform, and lightness alone gives the order: it survives grey print

Image = NDArray[np.uint8]


def denormalise(pixel_values: Tensor, mean: Sequence[float], std: Sequence[float]) -> Image:
    """Normalised images back to pixels.

    Args:
        pixel_values (`Tensor`): (B, 3, H, W), `(pixels − mean) / std`.
        mean, std (`list[float]`): of the three channels, pixels in [0, 1].

    Returns:
        `np.ndarray`: (B, H, W, 3) uint8.

    Raises:
        ValueError: if the shape is another one, or mean and std are not three numbers each.
    """
    if pixel_values.ndim != 4 or pixel_values.shape[1] != 3:
        raise ValueError(f"pixel_values must be (B, 3, H, W), but their shape is {tuple(pixel_values.shape)}.")
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"mean and std must be three numbers each, but they are {mean!r} and {std!r}.")
    scale, shift = (torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1) for values in (std, mean))
    pixels = pixel_values.detach().float().cpu() * scale + shift
    return (torch.nan_to_num(pixels).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def photo_parts(photos: Sequence[PILImage.Image], processor: Any, short_side: int = 320) -> Image:
    """What a network is given of photographs, before they are made as small as it takes them.

    Args:
        photos: N images.
        processor (`AnteHocImageProcessor`): says which part of a photo is used.
        short_side (`int`): pixels that the shorter side has at least.

    Returns:
        `np.ndarray`: (N, H, W, 3) uint8, of the shape of the network's input.
    """
    size = (processor.size["width"], processor.size["height"])
    scale = max(1, -(-short_side // min(size)))
    parts = []
    for photo in photos:
        corners = processor.geometry(photo.height, photo.width).to_image(torch.tensor([[0.0, 0.0], [1.0, 1.0]])) + 0.5
        left, top, right, bottom = corners.round().int().flatten().tolist()
        part = to_rgb(photo).crop((left, top, max(right, left + 1), max(bottom, top + 1)))
        parts.append(np.asarray(part.resize((scale * size[0], scale * size[1]), PILImage.Resampling.BICUBIC)))
    return np.stack(parts)


def overlay(image: Image, map_: Any, alpha: float = 0.75, colormap: str = COLORMAP) -> Image:
    """The map in colour over the image in grey: where the map is low the image shows, where it is high the colour.

    Args:
        image (`np.ndarray`): (H, W, 3) uint8.
        map_ (`Tensor` or `np.ndarray`): (h, w) or (1, h, w), in [0, 1]; made as large as the image.
        alpha (`float`): opacity of the colour where the map is 1; it falls to 0 with the map.
        colormap (`str`): any name of matplotlib's.

    Returns:
        `np.ndarray`: (H, W, 3) uint8. A map that is not finite somewhere counts as 0 there.

    Raises:
        ValueError: if shapes don't fit, alpha is outside [0, 1] or there is no such colormap.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"The image must be (H, W, 3) uint8, but it is {image.shape} {image.dtype}.")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha!r} must be in [0, 1].")
    if colormap not in matplotlib.colormaps:
        raise ValueError(f"matplotlib has no colormap named {colormap!r}; see matplotlib.colormaps.")
    values = map_values(map_, image.shape[:2])
    coloured = matplotlib.colormaps[colormap](values)[..., :3] * 255
    # Rec. 601 lightness, towards the middle: the map's colours are the only ones, and dark objects stay visible.
    grey = (image @ np.array([0.299, 0.587, 0.114]))[..., None] * 0.75 + 32
    opacity = alpha * values[..., None]
    return np.round(grey * (1 - opacity) + coloured * opacity).clip(0, 255).astype(np.uint8)


def energy_pictures(images: Image, maps: Tensor) -> Image:
    """What maps (N, 1, h, w) leave of images (N, H, W, 3): the rest fades to black."""
    left = np.stack([map_values(map_, images.shape[1:3]) for map_ in maps])[..., None]
    return np.round(images * left).astype(np.uint8)


def map_values(map_: Any, size: tuple[int, ...] | None = None) -> NDArray[np.float32]:
    """(H, W) float32 in [0, 1], in this size or its own; what is not finite is 0."""
    values = torch.as_tensor(map_).detach().float().cpu()
    values = values[0] if values.ndim == 3 and len(values) == 1 else values
    if values.ndim != 2:
        raise ValueError(f"A map must be (H, W) or (1, H, W), but its shape is {tuple(values.shape)}.")
    values = torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).clamp(0, 1)
    if size is not None and values.shape != size:
        values = F.interpolate(values[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    return values.numpy()
