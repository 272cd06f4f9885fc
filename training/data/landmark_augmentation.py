"""Augmentation of images with points, which move along."""

import math
import random
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from timm.data.transforms import str_to_pil_interp
from torch import Tensor
from torchvision import transforms

from antehoc_hf.modeling.image_geometry import ImageGeometry, resized_part
from antehoc_hf.training.data.augmentation import NormalisedTensor
from antehoc_hf.training.data.errors import DataError

LANDMARK_AUGMENTATIONS = {
    "none": "the evaluation transform: no augmentation",
    "flip": "the evaluation transform, mirrored half of the time",
    "affine": "turned, scaled and shifted a little, in slightly other light",
    "affine-flip": "turned, scaled and shifted a little, mirrored half of the time, in slightly other light",
}
_DEGREES = 20.0
_SCALE = 1.15
_SHIFT = 0.06
_JITTER = 0.25


def check_augmentation(name: str, flip: Sequence[int] | None, group: str) -> None:
    """Raises a DataError if there is no such augmentation, or it mirrors points whose mirror images aren't known."""
    if name not in LANDMARK_AUGMENTATIONS:
        raise DataError(f"augmentation={name!r} is unknown: use one of {', '.join(LANDMARK_AUGMENTATIONS)}.")
    if "flip" in name and flip is None:
        raise DataError(
            f"augmentation={name!r} mirrors images, but for some of the points of {group!r} the mirror image is not "
            "known or not among them: give keypoint_flip, choose other points, or use augmentation 'none'."
        )


def mirrored(points: Tensor, flip: Sequence[int]) -> Tensor:
    """(K, 2) points in units of width and height as they lie in the mirrored image: left and right swap places."""
    swapped = points[list(flip)].clone()
    swapped[:, 0] = 1 - swapped[:, 0]
    return swapped


class RandomAffine:
    """Turns by up to ±20°, scales by up to 1.15 either way, shifts by up to 6 % of a side, all around the centre of
    the input, and with `flip` mirrors half of the images; then changes light, contrast and saturation by up to a
    quarter.

    What comes in from outside the image is of the mean colour, which the network sees as 0.

    Args:
        mean, std: of the three channels, pixels in [0, 1].
        interpolation: of the resizing, as timm names it.
        flip: position of the mirror image of each point; None: no image is mirrored.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], interpolation: str, flip: Sequence[int] | None
    ) -> None:
        self.fill = tuple(round(255 * value) for value in mean)
        self.tensor = NormalisedTensor(mean, std)
        self.interpolation = str_to_pil_interp(interpolation)
        self.flip = flip
        self.jitter = transforms.ColorJitter(_JITTER, _JITTER, _JITTER)

    def __call__(self, image: Image.Image, points: Tensor, geometry: ImageGeometry) -> tuple[Tensor, Tensor]:
        """An image and its points, changed alike.

        Args:
            image: as it was.
            points: (K, 2) in units of the input's width and height, as evaluation would have them.
            geometry: of the image.

        Returns:
            (3, H, W) float32, normalised, and the (K, 2) points where they are now.
        """
        height, width = geometry.crop
        forward = _random_matrix(height, width)
        # Resized as for evaluation, then turned and cropped at once, so that nothing is lost beforehand.
        if geometry.wasteful:
            resized, (top, left) = resized_part(image, geometry, self.interpolation, around=max(height, width))
        else:
            resized, top, left = image.resize((geometry.resized[1], geometry.resized[0]), self.interpolation), 0, 0
        backward = np.linalg.inv(forward)
        backward[0, 2] += geometry.offset[1] - left
        backward[1, 2] += geometry.offset[0] - top
        turned = resized.transform(
            (width, height),
            Image.Transform.AFFINE,
            tuple(backward[:2].flatten()),
            Image.Resampling.BILINEAR,
            fillcolor=self.fill,
        )
        size = points.new_tensor([width, height])
        matrix = torch.as_tensor(forward, dtype=points.dtype)
        moved = ((points * size) @ matrix[:2, :2].T + matrix[:2, 2]) / size
        if self.flip is not None and random.random() < 0.5:
            turned, moved = turned.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mirrored(moved, self.flip)
        return self.tensor(self.jitter(turned)), moved


def _random_matrix(height: int, width: int) -> np.ndarray:
    """(3, 3): pixels of the input, counted from its corner, to where they go."""
    angle = math.radians(random.uniform(-_DEGREES, _DEGREES))
    scale = math.exp(random.uniform(-1, 1) * math.log(_SCALE))
    shift = np.array([random.uniform(-_SHIFT, _SHIFT) * width, random.uniform(-_SHIFT, _SHIFT) * height])
    linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre = np.array([width / 2, height / 2])
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = centre + shift - linear @ centre
    return matrix
