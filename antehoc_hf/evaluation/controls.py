"""Maps that explain nothing. A measure that prefers one of them to an explanation measures something else.

Each takes normalised images (B, 3, H, W) and gives maps (B, 1, H, W) float32 in [0, 1] on the same device.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from antehoc_hf.evaluation.maps import image_seeds, minmax_maps


def constant_map(pixel_values: Tensor, value: float = 1.0) -> Tensor:
    """The same `value` everywhere: dims the image and explains nothing.

    Raises:
        ValueError: for a value outside [0, 1].
    """
    if not 0 <= value <= 1:
        raise ValueError(f"value={value!r} must be in [0, 1]: it is the value of a map.")
    batch, _, height, width = _shape(pixel_values)
    return torch.full((batch, 1, height, width), float(value), device=pixel_values.device)


def black_map(pixel_values: Tensor) -> Tensor:
    """Zero everywhere: nothing of the image is left."""
    return constant_map(pixel_values, 0.0)


def random_map(pixel_values: Tensor, seed: int = 0, first_index: int = 0) -> Tensor:
    """Independent uniform values, the same for an image however the data are batched and on any device.

    Args:
        pixel_values (`Tensor`): (B, 3, H, W).
        seed (`int`): of the noise.
        first_index (`int`): index of the first image in its data set.
    """
    batch, _, height, width = _shape(pixel_values)
    maps = torch.empty(batch, 1, height, width)
    for single, image_seed in zip(maps, image_seeds(batch, seed, first_index), strict=True):
        single.uniform_(generator=torch.Generator().manual_seed(image_seed))
    return maps.to(pixel_values.device)


def center_map(pixel_values: Tensor, sigma: float = 0.25) -> Tensor:
    """A Gaussian blob in the centre, where photographers put things: `exp(−(u² + v²) / 2σ²)`.

    Args:
        pixel_values (`Tensor`): (B, 3, H, W).
        sigma (`float`): standard deviation, as a part of the image's height and width.

    Raises:
        ValueError: for a sigma that is not positive.
    """
    if not sigma > 0:
        raise ValueError(f"sigma={sigma!r} must be positive: it is a part of the image's side.")
    batch, _, height, width = _shape(pixel_values)
    rows, columns = (
        ((torch.arange(side, device=pixel_values.device) + 0.5) / side - 0.5) / sigma for side in (height, width)
    )
    blob = torch.exp(-0.5 * (rows[:, None] ** 2 + columns[None, :] ** 2))
    return blob.expand(batch, 1, height, width).contiguous()


def sobel_map(pixel_values: Tensor) -> Tensor:
    """Edges: the length of the Sobel gradient of the mean over channels, stretched to [0, 1] for each image (Adebayo
    et al., "Sanity Checks for Saliency Maps", NeurIPS 2018: edges look like an explanation and know no model).

    An image of one colour has no edges, and a map of zeros.
    """
    _shape(pixel_values)
    grey = F.pad(pixel_values.float().mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=pixel_values.device)
    gradient = F.conv2d(grey, torch.stack([across, across.T])[:, None])
    # What is left of a flat image after rounding is not an edge.
    length = gradient.norm(dim=1, keepdim=True)
    return minmax_maps(torch.where(length > 1e-4, length, torch.zeros_like(length)))


# The rows every report prints: name → (pixel_values, seed, first_index) → maps.
CONTROLS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "constant 1": lambda pixel_values, seed, first_index: constant_map(pixel_values, 1.0),
    "constant 0.9": lambda pixel_values, seed, first_index: constant_map(pixel_values, 0.9),
    "constant 0.5": lambda pixel_values, seed, first_index: constant_map(pixel_values, 0.5),
    "black": lambda pixel_values, seed, first_index: black_map(pixel_values),
    "random": lambda pixel_values, seed, first_index: random_map(pixel_values, seed, first_index),
    "center": lambda pixel_values, seed, first_index: center_map(pixel_values),
    "sobel": lambda pixel_values, seed, first_index: sobel_map(pixel_values),
}

_MEANINGS = {
    "constant": "the same value everywhere",
    "black": "zero everywhere",
    "random": "noise",
    "center": "a blob in the middle",
    "sobel": "the edges of the image",
}


def controls_explained(names: Iterable[str]) -> str:
    """One line for below a table in which these rows stand, among others; empty if none of them is a control."""
    known = dict.fromkeys(name.split()[0] for name in names if name in CONTROLS or name in _MEANINGS)
    listed = ", ".join(f"{name} ({_MEANINGS[name]})" for name in known)
    return f"Controls, which know nothing of the model: {listed}." if listed else ""


def _shape(pixel_values: Tensor) -> tuple[int, int, int, int]:
    if pixel_values.ndim != 4:
        raise ValueError(f"pixel_values must be (B, 3, H, W), but their shape is {tuple(pixel_values.shape)}.")
    batch, channels, height, width = pixel_values.shape
    return batch, channels, height, width
