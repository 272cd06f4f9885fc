"""Missing pixels filled in from their neighbours, so that a hole neither shows its shape nor leaves the natural
images.

Source: Rong, Leemann, Borisov, Kasneci, Kasneci, "A Consistent and Efficient Evaluation Strategy for Attribution
Methods", ICML 2022 ("noisy linear imputation").
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from antehoc_hf.evaluation.maps import image_seeds

# Of the residual of the first guess; what is left over is far below the noise that is added.
_RESIDUAL = 1e-5
_CHECK_EVERY = 10


@torch.no_grad()
def linear_imputation(pixel_values: Tensor, missing: Tensor) -> Tensor:
    """Each missing pixel becomes the weighted mean of its eight neighbours, 1/6 for the four direct and 1/12 for the
    four diagonal ones. At the image's border the weights are scaled to sum to 1.

    The missing pixels are the unknowns of one linear system an image; its matrix is a graph Laplacian, hence positive
    definite as soon as one pixel is known, and is solved by conjugate gradients on the device of the images.

    Args:
        pixel_values (`Tensor`): (B, C, H, W).
        missing (`Tensor`): (B, 1, H, W) bool.

    Returns:
        `Tensor`: (B, C, H, W), equal to `pixel_values` where nothing is missing. Computed in float32: what is filled
            in is right up to about 1e-4 of the contrast.

    Raises:
        ValueError: if the shapes don't fit, no pixel of an image is known, or a value is not finite.
    """
    if pixel_values.ndim != 4 or missing.shape != (len(pixel_values), 1, *pixel_values.shape[-2:]):
        raise ValueError(
            "pixel_values (B, C, H, W) and missing (B, 1, H, W) don't fit: they are "
            f"{tuple(pixel_values.shape)} and {tuple(missing.shape)}."
        )
    if missing.dtype != torch.bool:
        raise ValueError(f"missing must be bool, but it is {missing.dtype}: compare with a threshold first.")
    hole = missing.to(pixel_values.device)
    if bool(hole.flatten(1).all(dim=1).any()):
        raise ValueError("At least one pixel of each image must be known: there is nothing to fill the others from.")
    if not bool(torch.isfinite(pixel_values).all()):
        raise ValueError("pixel_values hold values that are not finite: there is no mean of them to fill in.")
    # On the CPU image by image: each ends when it is solved, and stays in the cache meanwhile.
    pieces = 1 if pixel_values.device.type == "cpu" else max(1, len(pixel_values))
    pairs = zip(pixel_values.split(pieces), hole.split(pieces), strict=True)
    filled = torch.cat([_solve(images, holes) for images, holes in pairs])
    return torch.where(hole, filled.to(pixel_values.dtype), pixel_values)


def noisy_linear_imputation(
    pixel_values: Tensor, missing: Tensor, noise: float = 0.01, seed: int = 0, first_index: int = 0
) -> Tensor:
    """`linear_imputation` plus Gaussian noise on the missing pixels, so that smoothness doesn't give them away.

    Args:
        pixel_values, missing (`Tensor`): see `linear_imputation`.
        noise (`float`): standard deviation of the noise, in the units of `pixel_values`.
        seed, first_index (`int`): of the noise, which depends on neither batches nor mask.

    Returns:
        `Tensor`: (B, C, H, W), equal to `pixel_values` where nothing is missing.

    Raises:
        ValueError: for a negative noise; see `linear_imputation`.
    """
    check_noise(noise)
    filled = linear_imputation(pixel_values, missing) + noise * image_noise(pixel_values, seed, first_index)
    return torch.where(missing.to(pixel_values.device), filled, pixel_values)


def check_noise(noise: float) -> None:
    """Raises a ValueError unless `noise` is a standard deviation."""
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise={noise!r} must be a standard deviation, 0 or more.")


def image_noise(pixel_values: Tensor, seed: int, first_index: int) -> Tensor:
    """Standard normal noise (B, C, H, W), the same for an image however the data are batched and on any device."""
    drawn = torch.empty(pixel_values.shape, dtype=torch.float32)
    for single, image_seed in zip(drawn, image_seeds(len(drawn), seed, first_index), strict=True):
        single.normal_(generator=torch.Generator().manual_seed(image_seed))
    return drawn.to(pixel_values)


def _solve(pixel_values: Tensor, hole: Tensor) -> Tensor:
    """Preconditioned conjugate gradients for all images and channels at once; (B, C, H, W), right inside the hole."""
    inside = hole.float()
    known = pixel_values.float() * (1 - inside)
    weight = _neighbours(F.pad(torch.ones_like(inside), (1, 1, 1, 1)))  # sum of a pixel's weights: less at the border
    right = _neighbours(F.pad(known, (1, 1, 1, 1))) * inside
    # The mean of what is known is a fair first guess, and leaves constant images as they are.
    guess = (known.sum(dim=(2, 3), keepdim=True) / (1 - inside).sum(dim=(2, 3), keepdim=True)) * inside
    residual = right - inside * (weight * guess - _neighbours(F.pad(guess, (1, 1, 1, 1))))
    # A flat image is solved by the guess, up to rounding.
    rounding = 10 * torch.finfo(torch.float32).eps * right.norm(dim=(2, 3), keepdim=True)
    goal = torch.maximum(_RESIDUAL * residual.norm(dim=(2, 3), keepdim=True), rounding)
    # In place and with its border of zeros throughout: at small sizes the number of operations is what takes time.
    padded = F.pad(residual / weight, (1, 1, 1, 1))
    direction = padded[..., 1:-1, 1:-1]
    power = (residual * direction).sum(dim=(2, 3), keepdim=True)
    for step in range(hole[0].numel() if len(hole) else 0):
        if step % _CHECK_EVERY == 0 and bool((residual.norm(dim=(2, 3), keepdim=True) <= goal).all()):
            break
        image = (weight * direction).sub_(_neighbours(padded)).mul_(inside)
        curvature = (direction * image).sum(dim=(2, 3), keepdim=True)
        # A system that is solved exactly has no direction left.
        length = torch.where(curvature > 0, power / curvature, 0.0)
        guess.add_(length * direction)
        residual.sub_(image.mul_(length))
        scaled = residual / weight
        last, power = power, (residual * scaled).sum(dim=(2, 3), keepdim=True)
        direction.mul_(torch.where(last > 0, power / last, 0.0)).add_(scaled)
    return guess


def _neighbours(padded: Tensor) -> Tensor:
    """Σ weight · value over the eight neighbours: (1, 2, 1)/12 along both axes, less the middle's 4/12."""
    rows = torch.add(padded[..., :-2, :], padded[..., 1:-1, :], alpha=2).add_(padded[..., 2:, :])
    found = torch.add(rows[..., :-2], rows[..., 1:-1], alpha=2).add_(rows[..., 2:])
    return found.div_(12).sub_(padded[..., 1:-1, 1:-1] / 3)
